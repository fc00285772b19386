"""Who is measured, and how each is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.process_spec import ProcessSpec
from infra.local.staging import stage
from infra.local.start_commands import heroku_process
from scripts.bench_serve.wire import HOST, Form
from service.model import WEIGHTS_OF
from service.schema import PREDICT
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PEERS = "scripts.bench_serve.peers"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LITSERVE_BATCH = 16

# What gunicorn's documentation has for threaded applications: https://docs.gunicorn.org/en/stable/design.html
GUNICORN = ("gunicorn", "--worker-class", "gthread", "--threads", "8", "--keep-alive", "75")
FORM, RAW = Form(PREDICT, "request"), Form(PREDICT)


@dataclass(frozen=True)
class Site:
    """Where servers are started from."""

    folder: Path  # a new one, for all that they write
    peers_python: Path

    def shipped(self, engine: str) -> Path:
        """What a cloud gets for the engine."""
        root = self.folder / engine / "app"
        return root if root.exists() else stage(root, engine)

    @property
    def env(self) -> dict[str, str]:
        """Keeps what a peer writes in the folder."""
        return {"HOME": str(self.folder), "TMPDIR": str(self.folder)}


@dataclass(frozen=True)
class Start:
    """One process, and where it runs."""

    launch: ProcessSpec
    cwd: Path


@dataclass(frozen=True)
class Server:
    """One that answers pictures over HTTP."""

    name: str
    title: str
    engine: str  # that computes its answers: "torch" or "onnx"
    ours: bool
    how: str  # it is run, in words
    form: Form
    start: Callable[[Site, int], Start]  # given a port
    package: str | None = None  # that it needs from the peers' environment


def _ours(engine: str) -> Callable[[Site, int], Start]:
    """As a dyno starts it: the Procfile, in what is shipped."""

    def start(site: Site, port: int) -> Start:
        root = site.shipped(engine)
        launch = heroku_process(root, port, engine)
        return Start(ProcessSpec(launch.command, {**launch.env, "HOME": str(site.folder)}), root)

    return start


def _flask(module: str) -> Callable[[Site, int], Start]:
    def start(site: Site, port: int) -> Start:
        command = (sys.executable, "-m", *GUNICORN, "--bind", f"{HOST}:{port}", f"{PEERS}.{module}:app")
        return Start(ProcessSpec(command, site.env), ROOT)

    return start


def _litserve(*batch: str) -> Callable[[Site, int], Start]:
    def start(site: Site, port: int) -> Start:
        command = (str(site.peers_python), "-m", f"{PEERS}.litserve_server", str(port), *batch)
        return Start(ProcessSpec(command, site.env), ROOT)

    return start


def _bentoml(site: Site, port: int) -> Start:
    program = (str(site.peers_python), "-m", "bentoml", "serve", f"{PEERS}.bentoml_service:Classifier")
    env = {**site.env, "BENTOML_HOME": str(site.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return Start(ProcessSpec((*program, "--host", HOST, "--port", str(port)), env), ROOT)


SERVERS = {
    server.name: server
    for server in (
        Server("ours-onnx", "This service, ONNX int8", "onnx", True,
               "as on Heroku: Procfile, gunicorn.conf.py, ENGINE=onnx", RAW, _ours("onnx")),
        Server("ours-torch", "This service, PyTorch", "torch", True,
               "as on Heroku: Procfile, gunicorn.conf.py, ENGINE=torch", RAW, _ours("torch")),
        Server("every-post", "Flask, weights loaded on every POST", "torch", False,
               "the original design, under gunicorn with 8 threads", RAW, _flask("flask_every_post")),
        Server("flask", "Flask, one pass per request", "torch", False,
               "gunicorn with 8 threads, model loaded once, eager PyTorch", RAW, _flask("flask_torch")),
        Server("flask-onnx", "Flask, ONNX int8, one pass per request", "onnx", False,
               "gunicorn with 8 threads, session loaded once", RAW, _flask("flask_onnx")),
        Server("litserve", "LitServe", "torch", False,
               "one worker, eager PyTorch; pictures as multipart", FORM, _litserve(), "litserve"),
        Server("litserve-batch", "LitServe, batching", "torch", False,
               f"one worker, up to {LITSERVE_BATCH} pictures or 5 ms, eager PyTorch; pictures as multipart", FORM,
               _litserve(str(LITSERVE_BATCH)), "litserve"),
        Server("bentoml", "BentoML, adaptive batching", "torch", False,
               "one worker, up to 32 pictures, eager PyTorch; pictures as multipart", Form(PREDICT, "images"),
               _bentoml, "bentoml"),
    )
}  # fmt: skip


def missing(server: Server, python: Path) -> str | None:
    """What a server lacks here, None when it can be tried."""
    weights = Settings.model_dir / WEIGHTS_OF[server.engine]
    if not weights.is_file():
        return f"there is no {weights}; make export writes it"
    if server.package and not package_version(python, server.package):
        return f"{server.package} is not installed for {python}; scripts/bench_serve/setup-peers says why"
    return None


def package_version(python: Path, package: str) -> str | None:
    """What that Python has of a package."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def versions(servers: Mapping[str, Server], python: Path) -> dict[str, str]:
    """Of the libraries that these servers run on."""
    names = {"torch": Path(sys.executable), "onnxruntime": Path(sys.executable), "flask": Path(sys.executable),
             "gunicorn": Path(sys.executable)}  # fmt: skip
    names |= {server.package: python for server in servers.values() if server.package}
    return {name: found for name, of in names.items() if (found := package_version(of, name))}
