"""The policy pack, started and asked by the real pulumi."""

from __future__ import annotations

import pytest

from tests.helpers.infra.program_runs import STACKS
from tests.pulumi_engine.fake_cloud import FakeCloud
from tests.pulumi_engine.pulumi_project import failed, passed, pulumi_project

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.pulumi]

PACK = ("--policy-pack", "infra/policy")
UP = ("up", "--yes", "--skip-preview")


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_keeps_the_rules(stack, tmp_path):
    with pulumi_project(stack, tmp_path, FakeCloud()) as project:
        passed(project.make("preview", *PACK))
        assert "cloudtrial@v0.1.0" in passed(project.make(*UP, *PACK)).text


@pytest.mark.parametrize("command", [("preview",), UP])
def test_program_that_breaks_a_rule_is_refused(command, tmp_path):
    with pulumi_project("aws_ec2", tmp_path, FakeCloud()) as project:
        program = project.root / "infra" / "aws_ec2" / "__main__.py"
        text = program.read_text(encoding="utf-8")
        broken = text.replace('http_tokens="required"', 'http_tokens="optional"')
        assert broken != text
        assert program.resolve().is_relative_to(tmp_path.resolve())  # a copy
        program.write_text(broken, encoding="utf-8")
        output = failed(project.make(*command, *PACK))
        assert "imdsv2" in output and "metadataOptions.httpTokens is 'optional'; set it to 'required'" in output
        assert not project.cloud.of_type("Instance")
