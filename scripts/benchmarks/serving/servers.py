"""The servers that are measured, and how each starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.local.staging import stage
from infra.local.start_commands import heroku_process
from scripts.benchmarks.http_messages import HOST, UploadFormat
from scripts.benchmarks.serving.process_tree import Start
from scripts.paths import ROOT
from service.model import WEIGHTS_OF
from service.schema import PREDICT
from service.settings import Settings

BASELINES = "scripts.benchmarks.serving.baselines"
BASELINES_PYTHON = ROOT / ".venv-baselines" / "bin" / "python"
LITSERVE_BATCH = 16

# gunicorn's documentation for threaded applications: https://docs.gunicorn.org/en/stable/design.html
GUNICORN = ("gunicorn", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "75")
FORM, RAW = UploadFormat(PREDICT, "request"), UploadFormat(PREDICT)


@dataclass(frozen=True)
class Workspace:
    """The folder that servers are started from."""

    folder: Path  # a temporary one, for all that they write
    baselines_python: Path

    def shipped(self, engine: str) -> Path:
        """The staged deployment of the engine."""
        root = self.folder / engine / "app"
        return root if root.exists() else stage(root, engine)

    @property
    def env(self) -> dict[str, str]:
        """Directs a baseline's files into the folder."""
        return {"HOME": str(self.folder), "TMPDIR": str(self.folder)}


@dataclass(frozen=True)
class Server:
    """A server that classifies images over HTTP."""

    name: str
    title: str
    engine: str  # that computes its predictions: "torch" or "onnx"
    ours: bool
    description: str  # how it runs
    upload_format: UploadFormat
    start: Callable[[Workspace, int], Start]  # of a port
    package: str | None = None  # required from the baselines' environment


def _ours(engine: str) -> Callable[[Workspace, int], Start]:
    """As a dyno starts it: the Procfile, in the staged deployment."""

    def start(workspace: Workspace, port: int) -> Start:
        root = workspace.shipped(engine)
        launch = heroku_process(root, port, engine)
        return Start(launch.command, root, {**launch.env, "HOME": str(workspace.folder)})

    return start


def _flask(app: str) -> Callable[[Workspace, int], Start]:
    def start(workspace: Workspace, port: int) -> Start:
        command = (sys.executable, "-m", *GUNICORN, "--bind", f"{HOST}:{port}", f"{BASELINES}.flask_apps:{app}()")
        return Start(command, ROOT, workspace.env)

    return start


def _litserve(*batch: str) -> Callable[[Workspace, int], Start]:
    def start(workspace: Workspace, port: int) -> Start:
        command = (str(workspace.baselines_python), "-m", f"{BASELINES}.litserve_server", str(port), *batch)
        return Start(command, ROOT, workspace.env)

    return start


def _bentoml(workspace: Workspace, port: int) -> Start:
    program = (str(workspace.baselines_python), "-m", "bentoml", "serve", f"{BASELINES}.bentoml_service:Classifier")
    env = {**workspace.env, "BENTOML_HOME": str(workspace.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return Start((*program, "--host", HOST, "--port", str(port)), ROOT, env)


SERVERS = {
    server.name: server
    for server in (
        Server("ours-onnx", "This service, ONNX int8", "onnx", True,
               "as on Heroku: Procfile, ENGINE=onnx", RAW, _ours("onnx")),
        Server("ours-torch", "This service, PyTorch", "torch", True,
               "as on Heroku: Procfile, ENGINE=torch", RAW, _ours("torch")),
        Server("every-post", "Flask, weights loaded on every POST", "torch", False,
               "the original design, under gunicorn with 8 threads", RAW, _flask("every_post")),
        Server("flask", "Flask, one pass per request", "torch", False,
               "gunicorn with 8 threads, model loaded once, eager PyTorch", RAW, _flask("eager_torch")),
        Server("flask-onnx", "Flask, ONNX int8, one pass per request", "onnx", False,
               "gunicorn with 8 threads, session loaded once", RAW, _flask("onnx_int8")),
        Server("litserve", "LitServe", "torch", False,
               "one worker, eager PyTorch; images as multipart", FORM, _litserve(), "litserve"),
        Server("litserve-batch", "LitServe, batching", "torch", False,
               f"one worker, up to {LITSERVE_BATCH} images or 5 ms, eager PyTorch; images as multipart", FORM,
               _litserve(str(LITSERVE_BATCH)), "litserve"),
        Server("bentoml", "BentoML, adaptive batching", "torch", False,
               "one worker, up to 32 images, eager PyTorch; images as multipart", UploadFormat(PREDICT, "images"),
               _bentoml, "bentoml"),
    )
}  # fmt: skip


def missing(server: Server, python: Path) -> str | None:
    """What a server lacks here; None if it can run."""
    weights = Settings.model_dir / WEIGHTS_OF[server.engine]
    if not weights.is_file():
        return f"there is no {weights}; make export writes it"
    if server.package and not package_version(python, server.package):
        return f"{server.package} is not installed for {python}; scripts/benchmarks/serving/setup-baselines says why"
    return None


def package_version(python: Path, package: str) -> str | None:
    """The package's version in that Python; None without it."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        completed = subprocess.run([str(python), "-c", code], capture_output=True, text=True, encoding="utf-8")
    except OSError:
        return None
    return completed.stdout.strip() or None


def versions(servers: Iterable[Server], python: Path) -> dict[str, str]:
    """Versions of the servers' libraries."""
    pythons = dict.fromkeys(("torch", "onnxruntime", "flask", "granian", "gunicorn"), Path(sys.executable))
    pythons |= {server.package: python for server in servers if server.package}
    return {name: version for name, python in pythons.items() if (version := package_version(python, name))}
