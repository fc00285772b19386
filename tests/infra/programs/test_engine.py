"""tests/offline_engine/engine.py: the miniature engine itself, with programs of a few lines."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.helpers.infra.program_runs import well
from tests.offline_engine.engine import UNKNOWN, ProgramResult, diff, run_program

pytestmark = pytest.mark.integration

# A resource with one output that only its provider knows: `arn`.
THING = """
import pulumi

class Thing(pulumi.CustomResource):
    arn: pulumi.Output[str]

    def __init__(self, name, opts=None, kind="test:index:Thing", **inputs):
        super().__init__(kind, name, {"arn": None, **inputs}, opts)

"""


def play(folder: Path, program: str, **options) -> ProgramResult:
    """Run these lines as a project's program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Pulumi.yaml").write_text("name: tiny\nruntime: python\n")
    (folder / "__main__.py").write_text(THING + textwrap.dedent(program))
    return run_program(folder, "dev", **options)


def test_a_run_records_inputs_dependencies_and_options(tmp_path):
    run = well(
        play(
            tmp_path,
            """
            first = Thing("first", size=3)
            keep = pulumi.ResourceOptions(depends_on=[first], ignore_changes=["image"], protect=True)
            Thing("second", keep, image="a", of=first.arn)
            Thing("third", pulumi.ResourceOptions(retain_on_delete=True))
            pulumi.export("where", first.arn)
            """,
        )
    )
    first, second, third = sorted(run.of_type("Thing"), key=lambda r: r.name)
    assert (first.type, first.name, first.inputs) == ("test:index:Thing", "first", {"size": 3})
    assert second.inputs == {"image": "a", "of": first.outputs["arn"]}
    assert second.dependencies == (first.urn,)
    assert second.property_dependencies["of"] == (first.urn,)
    assert second.ignore_changes == ("image",)
    assert [r.protect for r in (first, second, third)] == [False, True, False]
    assert [r.retain_on_delete for r in (first, second, third)] == [False, False, True]
    assert run.outputs == {"where": first.outputs["arn"]}
    assert run.single("pulumi:pulumi:Stack").name == "tiny-dev"


def test_preview_has_no_computed_values_and_applies_none(tmp_path):
    program = """
        thing = Thing("thing", size=3)
        Thing("next", of=thing.arn, id_of=thing.id, twice=thing.arn.apply(lambda arn: 1 / 0))
        pulumi.export("where", thing.arn)
        """
    run = well(play(tmp_path, program, preview=True))
    last = next(r for r in run.of_type("Thing") if r.name == "next")
    assert last.inputs == {"of": UNKNOWN, "id_of": UNKNOWN, "twice": UNKNOWN}
    assert run.outputs == {"where": UNKNOWN}

    up = play(tmp_path, program)
    assert up.exit_code != 0
    assert any("ZeroDivisionError" in error for error in up.errors)


def test_a_secret_is_marked_on_the_wire(tmp_path):
    run = well(
        play(
            tmp_path,
            """
            word = pulumi.Config().require_secret("word")
            Thing("thing", word=word, text=pulumi.Output.concat("say ", word), open="sesame")
            pulumi.export("word", word)
            """,
            secrets={"tiny:word": "hush"},
        )
    )
    thing = run.single("Thing")
    assert thing.unwrapped_inputs == {"word": "hush", "text": "say hush", "open": "sesame"}
    assert "hush" not in thing.cleartext
    assert "sesame" in thing.cleartext
    assert run.outputs["word"] != "hush"


def test_config_overrides_the_stack_files_settings(tmp_path):
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  tiny:size: 3\n  tiny:fast: true\n  tiny:word: a\n")
    run = well(
        play(
            tmp_path,
            """
            config = pulumi.Config()
            Thing("thing", size=config.require_int("size"), fast=config.require_bool("fast"), word=config.get("word"))
            """,
            config={"tiny:word": "b"},
        )
    )
    assert run.single("Thing").inputs == {"size": 3, "fast": True, "word": "b"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        pytest.param('Thing("a")\nThing("a")', "two resources have the URN", id="duplicate-urn"),
        pytest.param("Thing('a', text=f'{Thing(\"b\").arn}!')", "__str__", id="output-in-an-f-string"),
        pytest.param('pulumi.runtime.invoke("x:y:ask", {})', "no answer to x:y:ask", id="unanswered-invoke"),
        pytest.param('Thing("a", file=pulumi.FileAsset("gone.zip"))', "gone.zip", id="asset-without-a-file"),
        pytest.param('raise pulumi.RunError("not today")', "not today", id="run-error"),
    ],
)
def test_broken_program_fails_with_the_reason(tmp_path, program, reason):
    run = play(tmp_path, program)
    assert run.exit_code != 0
    assert any(reason in error for error in run.errors), run.errors


def test_diff_distinguishes_create_delete_update_and_replace(tmp_path):
    before = well(
        play(
            tmp_path / "before",
            """
            Thing("same", size=1)
            Thing("gone")
            Thing("grown", size=1)
            Thing("ignored", pulumi.ResourceOptions(ignore_changes=["size"]), size=1)
            run = Thing("run", kind="command:local:Command", triggers=["a"])
            Thing("behind", of=run.id)
            """,
        )
    )
    after = well(
        play(
            tmp_path / "after",
            """
            Thing("same", size=1)
            Thing("grown", size=2)
            Thing("ignored", pulumi.ResourceOptions(ignore_changes=["size"]), size=2)
            run = Thing("run", kind="command:local:Command", triggers=["b"])
            Thing("behind", of=run.id)
            Thing("new")
            """,
        )
    )
    assert diff(before, after) == {
        "Thing gone": "delete",
        "Thing grown": "update",
        "Command run": "replace",
        "Thing behind": "update",
        "Thing new": "create",
    }


def test_an_asset_is_compared_by_what_its_file_holds(tmp_path):
    runs = []
    for content in ("one", "one", "two"):
        (tmp_path / "asset.txt").write_text(content)
        runs.append(well(play(tmp_path, 'Thing("a", file=pulumi.FileAsset("asset.txt"))')))
    assert diff(runs[0], runs[1]) == {}
    assert diff(runs[1], runs[2]) == {"Thing a": "update"}


def test_a_program_finds_the_providers_libraries_loaded(tmp_path):
    """Or each run would spend two seconds of processor time on them."""
    run = well(
        play(
            tmp_path,
            """
            import sys
            names = ("aws.ec2.instance", "aws.sagemaker.endpoint", "gcp.cloudrunv2.service", "gcp.storage.bucket")
            pulumi.export("missing", [name for name in names if f"pulumi_{name}" not in sys.modules])
            """,
        )
    )
    assert run.outputs == {"missing": []}
