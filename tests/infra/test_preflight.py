"""Whether a stack will fit, said without any account."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.__main__ import main as eval_main
from infra import models
from infra.errors import ConfigError, NotMeasured, StackFileError, TokenInClear, TwinError
from infra.local.artifact_size import LIBRARIES
from infra.models import read_model
from infra.preflight import limits, measure
from infra.preflight.__main__ import DOES_NOT_FIT, FITS, MISUSED, main
from infra.preflight.checks import BUDGET_NEEDS
from infra.preflight.deployment_spec import read_deployment_spec
from infra.preflight.limits import Limit
from infra.preflight.measure import InstalledSize, LocalMeasurement, PackageSize
from infra.stackfile import read_settings
from infra.targets import (
    CLOUD_RUN_MEMORY_MIB,
    EC2_SIZES,
    HEROKU_SIZES,
    SAGEMAKER_SIZES,
    TARGETS,
    sagemaker_target,
)
from service.settings import ENGINES
from tests.conftest import ROOT
from tests.helpers.infra.program_runs import REQUIRED, make_checkout, refused
from tests.helpers.infra.small_bundles import MODEL_FILES, write_bundle
from tests.offline_engine.engine import run_program

pytestmark = pytest.mark.integration

SMALL = LocalMeasurement(peak_mib=340.0, startup_s=4.0, service_ms=60.0)


def preflight(capsys, monkeypatch, *arguments, local=SMALL, installed=None, settings="config: {}\n", folder=None):
    """Exit code, the table by its first column, all that was printed, and stderr."""
    monkeypatch.setattr(measure, "measure_local", lambda spec: local)
    monkeypatch.setattr(measure, "measure_package", lambda spec: PackageSize(20.7, 22.6))
    if installed is not None:
        monkeypatch.setattr(measure, "measure_installed", lambda spec: InstalledSize(installed, "given"))
    if folder is not None:
        (folder / f"Pulumi.{arguments[0]}.yaml").write_text(settings)
    code = main(arguments, folder or ROOT / "nowhere")
    captured = capsys.readouterr()
    rows, name = {}, ""
    for line in captured.out.splitlines()[2:]:
        if line[:1].strip():  # a verdict, and what it is about
            verdict, _, name = line.partition("  ")
            rows[name := name.strip()] = [verdict]
        elif name and line.strip():
            rows[name].insert(-1, line.strip())
    return code, {name: _in_order(row) for name, row in rows.items()}, captured.out, captured.err


def _in_order(row):
    """Value, limit, verdict, source; texts that were wrapped are whole again."""
    *details, verdict = row
    text = " ".join(details)
    value, _, limit = text.partition(" limit ")
    if not limit:
        value, separator, source = text.partition("eval/cost/prices.yaml")
        return [value, verdict, separator + source]
    limit, _, source = limit.partition(": ")
    return [value, limit, verdict, source]


EXPECTED = {
    "aws_ec2": ["user data", "disk"],
    "aws_sagemaker": ["image, unpacked", "largest request"],
    "heroku": ["slug, packed"],
    "gcp_cloudrun": ["image, unpacked", "largest request"],
    "gcp_function": ["zip", "largest request"],
}


@pytest.mark.parametrize("stack", TARGETS)
def test_every_target_fits_and_every_line_has_its_source(capsys, monkeypatch, stack):
    code, rows, out, _ = preflight(capsys, monkeypatch, stack)
    assert code == FITS and "Fits, as far as is known." in out
    assert "Not known" not in out
    for what in (*EXPECTED[stack], "memory", "start"):
        assert "fits" in rows[what], rows[what]
        assert "2026" in rows[what][-1] or "2025" in rows[what][-1]
    for what in ("cost at rest", "cost at 100,000 requests"):
        assert rows[what][0].startswith("$") and rows[what][-1].startswith("eval/cost/prices.yaml of 20")


def test_idle_cost_is_the_cost_models(capsys, monkeypatch):
    assert "$7.00 a month" in preflight(capsys, monkeypatch, "heroku")[1]["cost at rest"][0]
    assert "$83.98 a month" in preflight(capsys, monkeypatch, "aws_sagemaker")[1]["cost at rest"][0]
    assert "$20.11 a month" in preflight(capsys, monkeypatch, "aws_ec2")[1]["cost at rest"][0]
    assert "$0.00 a month, $0.03 without" in preflight(capsys, monkeypatch, "gcp_cloudrun")[1]["cost at rest"][0]


@pytest.mark.parametrize(
    ("stack", "settings", "says"),
    [
        pytest.param("aws_ec2", "", "$78.51 a month (1 VM busy", id="surplus-credits"),
        pytest.param("aws_ec2", "cloudtrial:size: c7i.large", "1 VM busy", id="no-burst"),
        pytest.param("gcp_cloudrun", "", "$208.96 a month (3 instances busy", id="default"),
        pytest.param("gcp_cloudrun", "cloudtrial:maxInstances: 100", "$6,964.23 a month (100 inst", id="hundred"),
        pytest.param("aws_sagemaker", "", "(3 instances busy", id="endpoint"),
        pytest.param("aws_sagemaker", "cloudtrial:size: ml.t2.medium", "(1 instance busy", id="endpoint-burstable"),
        pytest.param("aws_sagemaker", "cloudtrial:size: serverless-2048\n  cloudtrial:maxInstances: 5",
                     "(5 instances busy", id="serverless"),
        pytest.param("gcp_function", "cloudtrial:maxInstances: 1", "(1 instance busy", id="function"),
        pytest.param("heroku", "cloudtrial:size: standard-2x\n  cloudtrial:dynos: 2", "$100.00 a month (2 dynos",
                     id="dynos"),
    ],
)  # fmt: skip
def test_the_most_that_a_month_can_cost_is_said(capsys, monkeypatch, tmp_path, stack, settings, says):
    settings = f"config:\n  {settings}\n" if settings else "config: {}\n"
    _, rows, _, _ = preflight(capsys, monkeypatch, stack, "--no-twin", folder=tmp_path, settings=settings)
    text = rows["cost at most"][0]
    assert says in text and "without free allowances" in text
    assert ("for each million requests" in text) == stack.startswith(("aws_sagemaker", "gcp"))
    assert ("sent" in text) == (stack != "heroku")


@pytest.mark.parametrize(("stack", "needs"), BUDGET_NEEDS.items())
def test_a_budget_is_said_to_be_set_or_not(capsys, monkeypatch, tmp_path, stack, needs):
    code, rows, _, _ = preflight(capsys, monkeypatch, stack, "--no-twin")
    assert code == FITS and rows["budget alarm"][1] == "not set" and f"budgetUsd and {needs}" in rows["budget alarm"][0]
    settings = "config:\n  cloudtrial:budgetUsd: 1500\n"
    _, rows, _, _ = preflight(capsys, monkeypatch, stack, "--no-twin", folder=tmp_path, settings=settings)
    assert rows["budget alarm"][:2] == ["at $1,500 a month", "set"]


def test_herokus_dynos_are_their_own_limit(capsys, monkeypatch):
    assert "budget alarm" not in preflight(capsys, monkeypatch, "heroku", "--no-twin")[1]


def test_the_traffic_is_priced_with_the_twins_own_time(capsys, monkeypatch):
    arguments = ("gcp_cloudrun", "--requests-per-month", "10000000")
    row = "cost at 10,000,000 requests"
    quick = preflight(capsys, monkeypatch, *arguments, local=LocalMeasurement(340, 4, 60))[1][row][0]
    slow = preflight(capsys, monkeypatch, *arguments, local=LocalMeasurement(340, 4, 360))[1][row][0]
    assert quick != slow and "(service time of the twin)" in quick


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_twin_on_another_kind_of_processor_is_said(capsys, monkeypatch, tmp_path, machine):
    monkeypatch.setattr("platform.machine", lambda: machine)
    settings = "config:\n  cloudtrial:size: t4g.small\n"
    given = {"folder": tmp_path, "settings": settings, "local": LocalMeasurement(340, 4, 60)}
    _, rows, _, _ = preflight(capsys, monkeypatch, "aws_ec2", **given)
    told = [name for name, row in rows.items() if "on this machine's x86_64 in place of arm64" in row[0]]
    assert told == (["memory", "start", "cost at 100,000 requests"] if machine == "x86_64" else [])
    assert rows["cost at rest"][0].startswith("$17.19 a month")


@pytest.mark.parametrize(
    ("stack", "given", "line"),
    [
        pytest.param("heroku", {"local": LocalMeasurement(513, 4, 60)}, "memory", id="memory"),
        pytest.param("heroku", {"local": LocalMeasurement(340, 61, 60)}, "start", id="start"),
        pytest.param("heroku", {"installed": 4800.0}, "slug, packed", id="slug"),
        pytest.param("gcp_cloudrun", {"local": LocalMeasurement(1025, 4, 60)}, "memory", id="cloud-run-memory"),
        pytest.param("gcp_function", {"local": LocalMeasurement(340, 241, 60)}, "start", id="function-start"),
        pytest.param("aws_ec2", {"installed": 14000.0}, "disk", id="disk"),
        pytest.param("aws_ec2", {"local": LocalMeasurement(1800, 4, 60)}, "memory", id="memory-beside-debian"),
    ],
)
def test_exceeded_limit_is_reported_and_exits_1(capsys, monkeypatch, stack, given, line):
    code, rows, out, _ = preflight(capsys, monkeypatch, stack, **given)
    assert code == DOES_NOT_FIT and "does not fit" in rows[line]
    assert out.rstrip().endswith(f"Does not fit: {line}.")


def test_memory_of_a_cuda_build_says_nothing_of_the_cpu_build(capsys, monkeypatch):
    code, rows, _, _ = preflight(capsys, monkeypatch, "heroku", local=LocalMeasurement(662, 4, 60, cuda_build=True))
    assert (
        code == FITS
        and "not known" in rows["memory"]
        and "CUDA build; 313 MiB with torch 2.13.0+cpu" in rows["memory"][0]
    )
    assert (
        "fits"
        in preflight(capsys, monkeypatch, "heroku", local=LocalMeasurement(500, 4, 60, cuda_build=True))[1]["memory"]
    )


def test_user_data_that_ec2_would_refuse_does_not_fit(capsys, monkeypatch):
    monkeypatch.setattr("infra.aws_ec2.user_data.MAX_BYTES", 100)
    code, rows, _, _ = preflight(capsys, monkeypatch, "aws_ec2")
    assert code == DOES_NOT_FIT and "does not fit" in rows["user data"] and "EC2 takes 100" in rows["user data"][0]


def test_user_data_limit_is_the_programs():
    from infra.aws_ec2.user_data import MAX_BYTES

    assert limits.EC2_USER_DATA.amount == MAX_BYTES


def test_user_data_with_https_is_longer_and_still_fits(capsys, monkeypatch, tmp_path):
    plain = measure.user_data_bytes(read_deployment_spec("aws_ec2", {}))
    https = measure.user_data_bytes(read_deployment_spec("aws_ec2", {"cloudtrial:domain": "app.example.com"}))
    assert plain < https <= limits.EC2_USER_DATA.amount


def test_traffic_that_the_instances_cannot_serve_does_not_fit(capsys, monkeypatch):
    code, rows, _, _ = preflight(capsys, monkeypatch, "heroku", "--requests-per-month", "1000000000")
    row = rows["cost at 1,000,000,000 requests"]
    assert code == DOES_NOT_FIT and "3 instances" in row and "does not fit" in row


def test_without_the_twin_memory_and_start_are_not_known(capsys, monkeypatch):
    code, rows, out, _ = preflight(capsys, monkeypatch, "heroku", "--no-twin")
    assert code == FITS and out.rstrip().endswith("Not known: memory, start.")
    assert "not known" in rows["memory"] and "512 MiB" in rows["memory"]


def test_a_twin_that_does_not_start_is_not_known_and_why(capsys, monkeypatch):
    def fails(plan):
        raise TwinError("ended with status 3 before it was ready")

    monkeypatch.setattr(measure, "measure_local", fails)
    monkeypatch.setattr(measure, "measure_package", lambda spec: PackageSize(20.7, 22.6))
    assert main(["heroku"], ROOT / "nowhere") == FITS
    assert "not measured: ended with status 3 before it was ready" in capsys.readouterr().out


# The stack's settings


def test_stack_file_sets_the_size_for_memory_and_price_checks(capsys, monkeypatch, tmp_path):
    settings = "config:\n  cloudtrial:size: standard-2x\n  cloudtrial:dynos: 2\n"
    local = LocalMeasurement(700, 4, 60)
    _, rows, out, _ = preflight(capsys, monkeypatch, "heroku-prod", folder=tmp_path, settings=settings, local=local)
    assert out.startswith("Heroku, standard-2x, us, resnet18-cifar10, torch (stack heroku-prod)")
    assert "1,024 MiB" in rows["memory"] and rows["cost at rest"][0].startswith("$100.00 a month")


def test_a_container_on_heroku_has_no_slug(capsys, monkeypatch, tmp_path):
    settings = "config:\n  cloudtrial:build: container\n"
    code, rows, _, _ = preflight(capsys, monkeypatch, "heroku", folder=tmp_path, settings=settings, installed=4000.0)
    assert code == FITS and "slug, packed" not in rows and "none" in rows["image, unpacked"]


def test_a_size_or_region_without_a_price_is_not_known(capsys, monkeypatch, tmp_path):
    settings = "config:\n  aws:region: eu-west-1\n"
    code, rows, out, _ = preflight(capsys, monkeypatch, "aws_ec2", folder=tmp_path, settings=settings)
    assert code == FITS and "is for us-east-1, not eu-west-1" in out and "not known" in rows["cost"]


def test_instances_kept_warm_are_priced(capsys, monkeypatch, tmp_path):
    settings = "config:\n  cloudtrial:minInstances: 1\n"
    _, rows, _, _ = preflight(capsys, monkeypatch, "gcp_cloudrun", folder=tmp_path, settings=settings)
    assert rows["cost at rest"][0].startswith("$13.14 a month")


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        pytest.param(["azure"], "", "'azure' names no target", id="stack"),
        pytest.param(["aws_ec2"], "config:\n  cloudtrial:size: huge\n", "cloudtrial:size is 'huge'", id="size"),
        pytest.param(["gcp_cloudrun"], "config:\n  cloudtrial:vcpus: 3\n", "cloudtrial:vcpus is '3'", id="vcpus"),
        pytest.param(["gcp_function"], "config:\n  cloudtrial:memoryMib: lots\n", "cloudtrial:memoryMib", id="memory"),
        pytest.param(["heroku"], "config:\n  cloudtrial:model: vgg\n", "no model is called 'vgg'", id="model"),
        pytest.param(
            ["heroku"], "config:\n  cloudtrial:engine: jax\n", "no engine 'jax'; it has torch, onnx", id="engine"
        ),
        pytest.param(["heroku"], "config: 3\n", "has to hold settings below `config:`", id="file"),
    ],
)
def test_invalid_setting_is_one_line(capsys, monkeypatch, tmp_path, arguments, settings, says):
    code, _, out, errors = preflight(capsys, monkeypatch, *arguments, folder=tmp_path, settings=settings)
    assert (code, out) == (MISUSED, "") and says in errors and errors.count("\n") == 1


def test_a_token_over_http_is_refused_as_by_the_program(capsys, monkeypatch, tmp_path):
    token = "config:\n  cloudtrial:apiToken:\n    secure: AAA\n"
    code, _, _, errors = preflight(capsys, monkeypatch, "aws_ec2", folder=tmp_path, settings=token)
    assert (code, errors) == (MISUSED, f"preflight: {TokenInClear()}\n")
    for allowed in ("cloudtrial:allowTokenOverHttp: true", "cloudtrial:domain: app.example.com"):
        assert preflight(capsys, monkeypatch, "aws_ec2", folder=tmp_path, settings=f"{token}  {allowed}\n")[0] == FITS
    assert preflight(capsys, monkeypatch, "heroku", folder=tmp_path, settings=token)[0] == FITS


def test_secrets_and_missing_files_are_no_settings(tmp_path):
    (tmp_path / "Pulumi.heroku.yaml").write_text("config:\n  a:b:\n    secure: AAA\n  c:d: true\n  e:f: 2\n")
    assert read_settings("heroku", tmp_path) == {"c:d": "true", "e:f": "2"}
    assert read_settings("gone", tmp_path) == {}
    (tmp_path / "Pulumi.bad.yaml").write_text("[")
    with pytest.raises(StackFileError, match=r"Pulumi\.bad\.yaml cannot be read"):
        read_settings("bad", tmp_path)


@pytest.mark.parametrize("stack", TARGETS)
def test_a_stack_file_sets_something_so_that_pulumi_keeps_it(stack):
    """`pulumi config set` drops the comments, the list of settings, of a file without one (seen with 3.274.1)."""
    settings = read_settings(stack)
    assert len(settings) == 1 and set(settings.values()) == {TARGETS[stack].region}
    assert read_deployment_spec(stack, settings) == read_deployment_spec(stack, {})


def test_every_size_that_the_programs_take_can_be_planned():
    for size in EC2_SIZES:
        spec = read_deployment_spec("aws_ec2", {"cloudtrial:size": size})
        assert spec.target.memory_mib == EC2_SIZES[size].memory_mib
    for size in SAGEMAKER_SIZES:
        spec = read_deployment_spec("aws_sagemaker", {"cloudtrial:size": size})
        assert spec.target == sagemaker_target(size)
        assert spec.instances == (0 if size.startswith("serverless-") else 1)
    for size in HEROKU_SIZES:
        spec = read_deployment_spec("heroku", {"cloudtrial:size": size})
        assert spec.target.memory_mib == HEROKU_SIZES[size].memory_mib
    for vcpus, (low_mib, _) in CLOUD_RUN_MEMORY_MIB.items():
        settings = {"cloudtrial:vcpus": vcpus, "cloudtrial:memoryMib": str(low_mib), "cloudtrial:concurrency": "1"}
        assert read_deployment_spec("gcp_cloudrun", settings).target.vcpus == float(vcpus)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("preflight") / "checkout")


REFUSED = [
    ("gcp_cloudrun", {"memoryMib": "16384"}, "with 1 vCPU, Cloud Run has 512 to 4096 MiB"),
    ("gcp_cloudrun", {"concurrency": "0"}, "a whole number from 1 to 1000"),
    ("gcp_cloudrun", {"maxInstances": "0"}, "a whole number from 1 to 100"),
    ("gcp_cloudrun", {"minInstances": "9", "maxInstances": "3"}, "more than cloudtrial:maxInstances, 3"),
    ("gcp_cloudrun", {"vcpus": "0.5"}, "less than 1 vCPU"),
    ("heroku", {"size": "basic", "dynos": "5"}, "Heroku runs one basic dyno"),
    ("heroku", {"dynos": "0"}, "a whole number from 1 to 10"),
    ("aws_sagemaker", {"size": "ml.t2.medium", "maxInstances": "4"}, "AWS scales no burstable size"),
    ("aws_sagemaker", {"size": "serverless-2048", "minInstances": "1"}, "which runs nothing without a request"),
    ("aws_sagemaker", {"maxInstances": "0"}, "a whole number from 1 to 100"),
]


@pytest.mark.parametrize(("stack", "settings", "says"), REFUSED)
def test_what_a_program_refuses_is_refused_before(checkout, stack, settings, says):
    given = {f"cloudtrial:{key}": value for key, value in settings.items()}
    with pytest.raises(ConfigError, match=says):
        read_deployment_spec(stack, given)
    assert says in refused(run_program(checkout, stack, REQUIRED[stack] | given))


def test_an_empty_setting_is_an_unset_one():
    empty = dict.fromkeys(("cloudtrial:size", "cloudtrial:domain", "cloudtrial:budgetUsd"), "")
    assert read_deployment_spec("aws_ec2", empty) == read_deployment_spec("aws_ec2", {})


# Limits and measures


def test_every_limit_names_its_source_and_date():
    known = [value for value in vars(limits).values() if isinstance(value, Limit)]
    assert len(known) >= 12 and {field.name for field in fields(Limit)} >= {"source", "date"}
    for limit in known:
        assert len(limit.source) > 20 and limit.date.removeprefix("read ")[:2] == "20", limit


def test_boot_limits_of_heroku_and_cloud_run_are_the_targets():
    assert limits.HEROKU_BOOT.amount == TARGETS["heroku"].boot_timeout_s
    assert (
        limits.CLOUD_RUN_BOOT.amount == TARGETS["gcp_cloudrun"].boot_timeout_s == TARGETS["gcp_function"].boot_timeout_s
    )


def test_a_cuda_build_of_torch_is_recognised(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [SimpleNamespace(name=measure.CUDA)])
    assert measure.uses_cuda_build()


def test_libraries_that_are_not_those_shipped_are_stated(monkeypatch):
    def differs(requirements):
        raise NotMeasured("torch is 2.14.1 here, and not torch==2.15.0+cpu")

    monkeypatch.setattr(measure, "installed_bytes", differs)
    size = measure.measure_installed(read_deployment_spec("heroku", {}))
    assert size.megabytes == LIBRARIES["torch"].installed_mb
    assert "measured 2026-11; torch is 2.14.1 here, and not torch==2.15.0+cpu" in size.basis


def test_libraries_that_are_those_shipped_are_measured(monkeypatch):
    monkeypatch.setattr(measure, "installed_bytes", lambda requirements: 2_500_000)
    size = measure.measure_installed(read_deployment_spec("heroku", {}))
    assert size == InstalledSize(2.5, "measured in this environment")


def test_onnx_engine_is_measured_without_torch_and_is_smaller():
    spec = read_deployment_spec("heroku", {"cloudtrial:engine": "onnx"})
    size = measure.measure_installed(spec)
    assert size.basis == "measured in this environment"
    assert size.megabytes == pytest.approx(LIBRARIES["onnx"].installed_mb, rel=0.25)
    assert size.megabytes < LIBRARIES["torch"].installed_mb / 4


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_shipped_holds_the_engines_weights_alone(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.artifact.BUILD_DIR", Path(os.path.relpath(tmp_path, ROOT)))
    package = measure.measure_package(read_deployment_spec("gcp_function", {"cloudtrial:engine": engine}))
    weights_mb = (bundle := read_model("resnet18-cifar10")).path(bundle.engine(engine).file).stat().st_size / 1e6
    assert weights_mb < package.unpacked_mb < weights_mb + 5
    assert 0.5 * weights_mb < package.packed_mb < package.unpacked_mb


@pytest.fixture
def vgg16(tmp_path, monkeypatch) -> Path:
    """A model of 539 MB, as VGG16 with ImageNet's head is: a hole in the disk of that size."""
    monkeypatch.setattr(models, "MODELS_DIR", tmp_path)
    monkeypatch.setattr("infra.artifact.BUILD_DIR", Path(os.path.relpath(tmp_path, ROOT)))
    folder = write_bundle(tmp_path, "vgg16-imagenet", {"onnx": b""})
    os.truncate(folder / MODEL_FILES["onnx"], 539_000_000)
    return folder


def test_a_model_larger_than_the_memory_is_refused_at_once(capsys, vgg16, tmp_path):
    (tmp_path / "Pulumi.heroku.yaml").write_text("config:\n  cloudtrial:model: vgg16-imagenet\n")
    assert main(["heroku"], tmp_path) == DOES_NOT_FIT
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Heroku, basic, us, vgg16-imagenet, onnx (stack heroku)"
    row = lines.index("does not fit  memory")
    assert lines[row + 1].strip() == "514 MiB (of vgg16-imagenet's file alone)"
    assert lines[row + 2].strip().startswith("limit 512 MiB: ")
    assert lines[-1] == "Does not fit: memory. Not known: start."


def test_the_same_model_may_fit_a_larger_dyno(capsys, vgg16, tmp_path):
    settings = "config:\n  cloudtrial:model: vgg16-imagenet\n  cloudtrial:size: standard-2x\n"
    (tmp_path / "Pulumi.heroku.yaml").write_text(settings)
    assert main(["heroku", "--no-twin"], tmp_path) == FITS
    assert capsys.readouterr().out.splitlines()[-1] == "Fits, as far as is known. Not known: memory, start."


@pytest.mark.parametrize("engine", [pytest.param("torch", marks=pytest.mark.slow), "onnx"])
def test_the_twin_at_work_is_measured(engine):
    local = measure.measure_local(read_deployment_spec("heroku", {"cloudtrial:engine": engine}))
    assert 40 < local.peak_mib < 4096 and 0 < local.startup_s < 120 and 0 < local.service_ms < 60_000
    assert engine == "torch" or not local.cuda_build


# ./cloudtrial cost


def eval_cost(capsys, *arguments):
    code = eval_main(["cost", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_eval_cost_prints_the_bills_for_people_and_for_programs(capsys):
    code, out, _ = eval_cost(capsys, "heroku", "--requests-per-month", "1000", "--requests-per-month", "1000000")
    traffics = ("at rest", "1,000 a month", "1,000,000 a month")
    assert code == 0
    assert out.splitlines()[1:4] == [f"{traffic}: $7.00, $7.00 after free allowances" for traffic in traffics]
    code, out, _ = eval_cost(capsys, "gcp_cloudrun", "--json")
    assert set(json.loads(out)["monthly_usd"]) == {"100000"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["aws_ec2", "--size", "huge"], "aws_ec2 has no size 'huge'", id="size"),
        pytest.param(["aws_ec2", "--size", "c7i.xlarge"], "there is no price 'aws_ec2_c7i_xlarge_hour'", id="price"),
        pytest.param(["heroku", "--region", "eu"], "is for us, not eu", id="region"),
        pytest.param(["gcp_cloudrun", "--vcpus", "3"], "vCPUs: 0.5, 1, 2, 4, 6, 8", id="vCPUs"),
        pytest.param(["gcp_function", "--memory-mib", "100"], "sold with 512 to 4096 MiB", id="memory"),
        pytest.param(["gcp_cloudrun", "--vcpus", "4"], "4 vCPUs are sold with 2048 to 16384 MiB", id="too little"),
        pytest.param(["gcp_cloudrun", "--size", "t3.small"], "no --size: give --vcpus and --memory-mib", id="Google"),
        pytest.param(["heroku", "--vcpus", "2"], "heroku has no --vcpus: give --size", id="Heroku"),
        pytest.param(["aws_sagemaker", "--concurrency", "2"], "has no --concurrency: give --size", id="SageMaker"),
        pytest.param(["aws_ec2", "--max-instances", "2"], "no --max-instances: give --instances", id="EC2"),
    ],
)
def test_eval_cost_refuses_what_has_no_price_in_one_line(capsys, arguments, says):
    code, out, errors = eval_cost(capsys, *arguments)
    assert (code, out) == (1, "") and says in errors and errors.count("\n") == 1


def test_a_larger_burstable_machine_has_its_own_baseline():
    from eval.cost.estimate import Deployment, resolve_target

    baselines = {size: resolve_target(Deployment("aws_ec2", size=size)).baseline_vcpus for size in EC2_SIZES}
    assert baselines["t3.micro"] == 0.2 and baselines["t3.small"] == TARGETS["aws_ec2"].baseline_vcpus == 0.4
    assert baselines["c7i.large"] == 2


@pytest.mark.parametrize("module", ["infra.preflight", "infra.leftovers"])
def test_help_teaches_by_example(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "examples:" in done.stdout and "Exit codes:" in done.stdout


@pytest.mark.parametrize("module", ["infra.preflight", "infra.leftovers"])
def test_help_waits_for_no_large_library(module):
    large = ("numpy", "torch", "pulumi", "boto3", "google.auth", "requests")
    program = f"""
import runpy, sys
sys.argv = ["{module}", "--help"]
try:
    runpy.run_module("{module}", run_name="__main__", alter_sys=True)
finally:
    print("loaded:", *(name for name in {large} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"
