"""An endpoint whose truth is known, to check the harness against: `./cloudtrial mock-endpoint --truth truth.json`.

It speaks the wire contract, for one picture as the body of POST /predict, and is as slow, as wrong and as faulty as
its truth says. Any bytes will do as a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import selectors
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.oracle_state import COUNTS, Oracle
from eval.oracle_wire import Connection
from eval.samples import RunError
from eval.truth import Truth, read_truth

ROOT = Path(__file__).resolve().parent.parent
END_S = 10.0  # that an oracle gets to end
EXAMPLE = """
A truth file holds any values of eval/truth.py's Truth, such as
  {"seed": 1, "median_ms": 50, "sigma": 0.5, "servers": 2, "accuracy": 0.93,
   "faults": {"http_5xx": 0.01, "never": 0.001}, "cold_start_ms": 2500, "idle_s": 60}
The address is printed when it answers; then it goes on until Ctrl-C or SIGTERM.
GET /oracle/counts says what it was asked and what it gave.
"""


class FineSelector(selectors.DefaultSelector):
    """Waits to the microsecond: epoll alone rounds up to whole milliseconds, and every answer would be late by half."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self.fileno()], [], [], timeout)
        return super().select(0)


async def serve(truth: Truth, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    """Answer until SIGTERM or Ctrl-C."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    oracle = Oracle(truth, loop.time())
    server = await loop.create_server(lambda: Connection(oracle, loop), host, port, backlog=1024, ssl=tls)
    print(f"http{'s' if tls else ''}://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


@contextlib.contextmanager
def running_oracle(truth: Truth, *options: str) -> Iterator[str]:
    """The address of an oracle that knows this truth, in a process of its own. Raises RunError.

    `options` are of its command line, such as "--core", "1".
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth.to_json()))
        command = [sys.executable, "-m", "eval.oracle", "--truth", str(path), *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                if url := process.stdout.readline().strip():
                    yield url
            finally:
                process.terminate()
                said = _last_words(process)
            if not url:
                raise RunError(f"the oracle did not start: {said}")


def _last_words(process: subprocess.Popen[str]) -> str:
    """Wait for its end. Gives what it wrote as errors, and shows it."""
    try:
        _, said = process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    sys.stderr.write(said)
    return said.strip()


def counts(url: str) -> dict[str, Any]:
    """What an oracle was asked: number of predictions, of each picture by sha256, what was given, its instances."""
    with urllib.request.urlopen(url + COUNTS, timeout=10) as answer:
        return json.load(answer)


def main(arguments: list[str] | None = None) -> int:
    """Read the truth and serve it. Gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        truth = read_truth(options.truth.read_text(), str(options.truth)) if options.truth else Truth()
        tls = _tls(options.certfile, options.keyfile)
        if options.core is not None:
            os.sched_setaffinity(0, {options.core})
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FineSelector())) as runner:
            runner.run(serve(truth, options.host, options.port, tls))
    except (RunError, OSError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial mock-endpoint",
        description="An endpoint whose truth is known.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--truth", type=Path, metavar="FILE", help="JSON (default: 20 ms, no faults, 90%% right)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--core", type=int, metavar="NUMBER", help="run on this core only (Linux)")
    parser.add_argument("--certfile", type=Path, metavar="FILE", help="answer over TLS, with this certificate (PEM)")
    parser.add_argument("--keyfile", type=Path, metavar="FILE", help="its key (default: in the certificate's file)")
    return parser


def _tls(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    """For the server; None without a certificate. Raises RunError or OSError."""
    if certfile is None:
        if keyfile:
            raise RunError("--keyfile needs --certfile, the certificate that it belongs to")
        return None
    for file in filter(None, (certfile, keyfile)):
        file.open().close()  # the error of the next line does not say which file is missing
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError:
        raise RunError(f"{certfile} and its key cannot be used; give two in PEM that belong together") from None
    return context


if __name__ == "__main__":
    sys.exit(main())
