"""How each platform starts the service: the command of its own file, and the environment that the platform sets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.artifact import REPOSITORY
from infra.errors import PlatformFileError
from infra.local.dockerfile import read_dockerfile
from infra.local.process_spec import ProcessSpec
from infra.local.procfile import read_procfile
from infra.local.systemd_unit import Unit, read_interval_s, read_unit
from infra.models import DEFAULT_MODEL, model_env
from infra.targets import FUNCTION_ENTRY_POINT, FUNCTION_THREADS_PER_VCPU, GCP_CLOUDRUN, GCP_FUNCTION
from service.engines.names import PLAIN_ENGINE

PROCFILE = REPOSITORY / "infra" / "heroku" / "Procfile"
UNIT_FILE = REPOSITORY / "infra" / "aws_ec2" / "classifier.service"
PULL_UNIT_FILE = REPOSITORY / "infra" / "aws_ec2" / "classifier-model.service"
PULL_TIMER_FILE = PULL_UNIT_FILE.with_suffix(".timer")
VM_ROOT = "/opt/classifier/app"  # where the VM has what is shipped
VM_BIN = "/opt/classifier/venv/bin/"  # and its Python
SAGEMAKER_PROGRAMS = Path("infra", "aws_sagemaker")  # of what is shipped; the image has them on its PATH
HOST = "127.0.0.1"  # a platform's front is the only one to reach the process; here, this machine


def aws_ec2_process(root: Path, port: int, engine: str = PLAIN_ENGINE, model: str = DEFAULT_MODEL) -> ProcessSpec:
    """The systemd unit's process; `root` stands for the VM's folder, this Python's programs for the VM's."""
    unit = read_vm_unit()
    return ProcessSpec(_here(unit), {**unit.env, "PORT": str(port), **model_env(model, engine)})


def aws_ec2_pull(settings: Mapping[str, str]) -> ProcessSpec:
    """The process of the unit that pulls the model's versions. `settings` are those of the VM's environment file."""
    unit = read_unit(PULL_UNIT_FILE.read_text(encoding="utf-8"), settings)
    return ProcessSpec(_here(unit), {**unit.env, **settings})


def aws_ec2_pull_interval_s() -> float:
    """How often the VM's timer starts that."""
    return read_interval_s(PULL_TIMER_FILE.read_text(encoding="utf-8"))


def _here(unit: Unit) -> tuple[str, ...]:
    """The unit's command, with this Python's programs in the place of the VM's."""
    if unit.working_directory != VM_ROOT:
        raise PlatformFileError(f"unit: WorkingDirectory={unit.working_directory}: what is shipped lies in {VM_ROOT}")
    program, *arguments = unit.exec_start
    if not program.startswith(VM_BIN):
        raise PlatformFileError(f"unit: ExecStart={program}: the VM's programs lie in {VM_BIN}")
    local = Path(sys.executable).parent / program.removeprefix(VM_BIN)
    return (str(local), *arguments)


def heroku_process(root: Path, port: int, engine: str = PLAIN_ENGINE, model: str = DEFAULT_MODEL) -> ProcessSpec:
    """The Procfile's web process."""
    config = {"HOST": HOST, "PORT": str(port), **model_env(model, engine)}
    config["WEB_CONCURRENCY"] = "2"  # the buildpack sets it by the dyno's size
    config["GIT_SHA"] = ""  # known to a deployment; the model and the engine are the twin's
    return read_procfile(PROCFILE.read_text(encoding="utf-8"), config)


def gcp_cloudrun_process(root: Path, port: int, engine: str = PLAIN_ENGINE, model: str = DEFAULT_MODEL) -> ProcessSpec:
    """The command of the engine's image. As many requests are let in as the target says; the threads match."""
    config = {"HOST": HOST, "PORT": str(port), "WEB_THREADS": str(GCP_CLOUDRUN.concurrency)} | model_env(model, engine)
    return read_dockerfile(
        (root / "service" / "Dockerfile").read_text(encoding="utf-8"), root, config, {"ENGINE": engine}
    )


def aws_sagemaker_process(root: Path, port: int, engine: str = PLAIN_ENGINE, model: str = DEFAULT_MODEL) -> ProcessSpec:
    """The `serve` of SageMaker's image, which finds its port and what is mounted as SageMaker says."""
    config = {"HOST": HOST, "SAGEMAKER_BIND_TO_PORT": str(port), "SM_MODEL_DIR": str(mounted_model(root))}
    text = (root / "service" / "Dockerfile").read_text(encoding="utf-8")
    image = read_dockerfile(text, root, config | model_env(model, engine), {"ENGINE": engine}, target="sagemaker")
    program, *arguments = image.command
    if not (root / SAGEMAKER_PROGRAMS / program).is_file():
        raise PlatformFileError(f"Dockerfile: CMD {program}: there is none in {SAGEMAKER_PROGRAMS}")
    return ProcessSpec((str(SAGEMAKER_PROGRAMS / program), *arguments), image.env)


def mounted_model(root: Path) -> Path:
    """What stands for /opt/ml/model, where SageMaker mounts a model's files; without any, the image's own is served."""
    return root.parent / "ml" / "model"


def gcp_function_process(root: Path, port: int, engine: str = PLAIN_ENGINE, model: str = DEFAULT_MODEL) -> ProcessSpec:
    """What the build of a function puts in front of main.py."""
    threads = round(FUNCTION_THREADS_PER_VCPU * GCP_FUNCTION.vcpus)
    command = ("functions-framework", "--target", FUNCTION_ENTRY_POINT, "--source", "main.py")
    config = {"HOST": HOST, "PORT": str(port), "THREADS": str(threads), "CLOUD_RUN_TIMEOUT_SECONDS": "60"}
    return ProcessSpec(command, config | model_env(model, engine))


def read_vm_unit() -> Unit:
    """The VM's unit."""
    return read_unit(UNIT_FILE.read_text(encoding="utf-8"))


START_COMMANDS: dict[str, Callable[[Path, int, str, str], ProcessSpec]] = {
    "aws_ec2": aws_ec2_process,
    "heroku": heroku_process,
    "gcp_cloudrun": gcp_cloudrun_process,
    "gcp_function": gcp_function_process,
    "aws_sagemaker": aws_sagemaker_process,
}
