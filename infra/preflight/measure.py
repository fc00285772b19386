"""What can be measured here: the artifact, the libraries that it requires, the user data, and the local twin."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from importlib import metadata
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infra.artifact import REPOSITORY, deployment_files, direct_requirements, write_tar_gz, write_zip
from infra.aws_ec2.user_data import MODELS_FOLDER, render
from infra.errors import NotMeasured, TwinError
from infra.local.artifact_size import LIBRARIES, MB, installed_bytes
from infra.models import followed_env, model_env
from infra.preflight.deployment_spec import DeploymentSpec
from infra.targets import AWS_SAGEMAKER
from service.schema import SERVER_TIMING

if TYPE_CHECKING:
    from eval.dataset.image_set import EncodedImage

PREDICTIONS = 12  # of the twin; the first ones are warm-up
WARM_UP = 2
TIMEOUT_S = 60  # of one prediction
CUDA = "libtorch_cuda.so"  # in a torch that is not the CPU build

STATED_PEAK = "313 MiB with torch 2.13.0+cpu, measured 2026-11"
PYTHON_MB = (20.0, 60.0)  # of Heroku's Python in the slug, an estimate


@dataclass(frozen=True)
class PackageSize:
    """The archive that is uploaded."""

    packed_mb: float
    unpacked_mb: float


@dataclass(frozen=True)
class InstalledSize:
    """What the service's requirements take on a disk."""

    megabytes: float
    basis: str  # measured, or as stated by whom


@dataclass(frozen=True)
class LocalMeasurement:
    """What the local twin used."""

    peak_mib: float
    startup_s: float
    service_ms: float  # median, of the service's own Server-Timing
    cuda_build: bool = False  # of torch, whose libraries fill memory that the shipped CPU build does not take


def measure_package(spec: DeploymentSpec) -> PackageSize:
    """Pack what the stack would ship; it lies in .build/ afterwards, as after `pulumi up`."""
    ships_model = not spec.follows_store
    files = deployment_files(engine=spec.engine, target=spec.target.name, model=spec.bundle, ships_model=ships_model)
    pack = write_zip if spec.target.name == "gcp_function" else write_tar_gz
    packed = pack(f"preflight-{spec.target.name}{'.zip' if pack is write_zip else '.tar.gz'}", files)
    size = (REPOSITORY / packed.path).stat().st_size
    return PackageSize(size / MB, sum(path.stat().st_size for path in files.values()) / MB)


def measure_installed(spec: DeploymentSpec) -> InstalledSize:
    """The size of what the engine requires: measured where just that is installed here, else as stated."""
    try:
        size = installed_bytes(direct_requirements(spec.engine, spec.target.name))
    except NotMeasured as error:
        stated = LIBRARIES[spec.engine]
        return InstalledSize(stated.installed_mb, f"{stated.basis}; {error}")
    return InstalledSize(size / MB, "measured in this environment")


def uses_cuda_build() -> bool:
    """Whether the torch that the twin runs here is another build than the one that is shipped."""
    return any(file.name == CUDA for file in metadata.files("torch") or ())


def user_data_bytes(spec: DeploymentSpec) -> int:
    """Size of the stack's user data with the longest possible values. Raises UserDataError when it is too long."""
    bucket = "s3://cloudtrial-bundle-" + "x" * 18
    settings = {
        "AWS_DEFAULT_REGION": spec.target.region,
        **model_env(spec.model, spec.engine),
        "BUNDLE_URI": f"{bucket}/bundle-{'0' * 16}.tar.gz",
        "BUNDLE_SHA256": "0" * 64,
        "TOKEN_PARAMETER": f"/cloudtrial-api-token-{'x' * 10}",
        "TOKEN_VERSION": "1",
        "PROTECT_STATUS": "1",
    }
    domain = "x" * 60 + ".example.com"
    if spec.stored and spec.follows_store:
        settings |= followed_env(str(spec.stored.reference), spec.engine, MODELS_FOLDER)
        settings["STORE_URL"] = spec.stored.url
    if spec.https:
        settings |= {"DOMAIN": domain, "CERTIFICATE_EMAIL": f"someone@{domain}",
                  "CERTIFICATE_URI": f"{bucket}/certificate-{domain}.pem"}  # fmt: skip
    return len(render(settings, host=domain, https=spec.https).encode())


def measure_local(spec: DeploymentSpec) -> LocalMeasurement:
    """Start the stack's twin, send it its golden set, read its memory. Raises TwinError, in one line."""
    from eval.dataset.images import load_images
    from eval.errors import ImagesError
    from infra.local.twins import local_twins

    try:
        images = load_images("golden", None, 0, lambda _: None, model=spec.model).images
    except ImagesError as error:
        raise TwinError(str(error)) from None
    try:
        with local_twins([spec.target.name], engines=[spec.engine], model=spec.bundle) as twins:
            for failure in twins.failures.values():
                raise TwinError(failure.splitlines()[0])
            twin = twins.running[0]
            ask = _invoke if spec.target.name == AWS_SAGEMAKER.name else _predict
            times = [ask(twin.url, images[number % len(images)]) for number in range(PREDICTIONS)]
            other_build = spec.engine == "torch" and uses_cuda_build()
            service_ms = median(times[WARM_UP:])
            return LocalMeasurement(twin.peak_memory_mib(), twin.startup_ms / 1000, service_ms, other_build)
    except TwinError as error:
        raise TwinError(str(error).splitlines()[0]) from None


def model_file_mib(spec: DeploymentSpec) -> float:
    """The size of what the engine loads: the least that the model takes of the memory."""
    bundle = spec.bundle
    return bundle.path(bundle.engine(spec.engine).file).stat().st_size / 2**20


def _predict(url: str, request: EncodedImage) -> float:
    """Sends one image, or row; returns the service's own time for it, in ms."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/predict", request.data, {"Content-Type": request.media_type})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TwinError(f"the twin did not answer: {error}") from None
    finally:
        connection.close()
    return _own_time(request, response.status, response.headers.get(SERVER_TIMING, ""))


def _invoke(url: str, request: EncodedImage) -> float:
    """The same of SageMaker's twin, whose requests are signed."""
    from eval.targets.sagemaker.invoke import invoke_twin

    try:
        answer = invoke_twin(url, request.data, request.media_type)
    except (OSError, http.client.HTTPException) as error:
        raise TwinError(f"the twin did not answer: {error}") from None
    return _own_time(request, answer.status, answer.headers.get(SERVER_TIMING, ""))


def _own_time(request: EncodedImage, status: int, server_timing: str) -> float:
    timing = re.search(r"total;dur=([0-9.]+)", server_timing)
    if status != http.client.OK or not timing:
        raise TwinError(f"the twin answered {request.entry.name} with {status}")
    return float(timing[1])
