"""A service that starts in a moment, for tests of how twins are started, ended and started again."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.local.process_spec import ProcessSpec
from infra.local.start_commands import HOST, START_COMMANDS

SCRIPT = """
import json, os, subprocess, sys, time, uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(os.environ["FOLDER"])
print("a life begins", flush=True)
if (folder / "broken").exists():
    sys.exit("broken as it was told")
if (folder / "large").exists():
    kept = bytearray(80 << 20)
if (folder / "child").exists():
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-I", "-S", "-c", stubborn])
instance, posts = uuid.uuid4().hex, 0
started_at = datetime.now(UTC).isoformat(timespec="milliseconds")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, **facts):
        body = json.dumps(facts).encode()
        self.send_response(200)
        for name, value in {"X-Instance-Id": instance, "X-Request-Ordinal": posts, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/version":
            phases = {"import": 2.0, "load": 1.0, "first_prediction": 0.5, "total": 3.5}
            self.answer(instance_id=instance, started_at=started_at, startup_ms=phases, engine=os.environ["ENGINE"])
        else:
            self.answer(status="ready")

    def do_POST(self):
        global posts
        self.rfile.read(int(self.headers["Content-Length"]))
        posts += 1
        self.answer(id=3, label="cat", probability=1.0, probabilities=[1.0 if i == 3 else 0.0 for i in range(10)])

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def small_service(monkeypatch, folder: Path, name: str = "heroku") -> None:
    """The named twin starts the script above. Files that are put into `folder` before a start tell it what to do."""
    (folder / "service.py").write_text(SCRIPT)

    def launch(_: Path, port: int, engine: str, model: str) -> ProcessSpec:
        command = (sys.executable, "-I", "-S", str(folder / "service.py"))
        return ProcessSpec(command, {"HOST": HOST, "PORT": str(port), "ENGINE": engine, "FOLDER": str(folder)})

    monkeypatch.setitem(START_COMMANDS, name, launch)
