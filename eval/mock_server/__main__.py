"""The command line of the endpoint with a known profile: `./cloudtrial mock-endpoint`."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
from pathlib import Path

from eval.errors import EvalError
from eval.mock_server.profile import EndpointProfile, parse_profile
from eval.mock_server.server import MicrosecondSelector, serve

EPILOG = """
A truth file holds any values of eval/mock_server/profile.py's Truth, such as
  {"seed": 1, "median_ms": 50, "sigma": 0.5, "servers": 2, "accuracy": 0.93,
   "faults": {"http_5xx": 0.01, "never": 0.001}, "cold_start_ms": 2500, "idle_s": 60}
The address is printed when it answers; then it goes on until Ctrl-C or SIGTERM.
GET /mock/counts says what it was asked and what it gave.
"""


def main(arguments: list[str] | None = None) -> int:
    """Read the truth and serve it. Gives the exit code."""
    args = _parser().parse_args(arguments)
    try:
        profile = parse_profile(args.truth.read_text(), str(args.truth)) if args.truth else EndpointProfile()
        ssl_context = _ssl_context(args.certfile, args.keyfile)
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(MicrosecondSelector())) as runner:
            runner.run(serve(profile, args.host, args.port, ssl_context))
    except (EvalError, OSError) as error:
        print(f"mock-endpoint: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial mock-endpoint",
        description="An endpoint whose truth is known.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--truth", type=Path, metavar="FILE", help="JSON (default: 20 ms, no faults, 90%% right)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--core", type=int, metavar="NUMBER", help="run on this core only (Linux)")
    parser.add_argument("--certfile", type=Path, metavar="FILE", help="answer over TLS, with this certificate (PEM)")
    parser.add_argument("--keyfile", type=Path, metavar="FILE", help="its key (default: in the certificate's file)")
    return parser


def _ssl_context(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    """For the server; None without a certificate. Raises EvalError or OSError."""
    if certfile is None:
        if keyfile:
            raise EvalError("--keyfile needs --certfile, the certificate that it belongs to")
        return None
    for file in filter(None, (certfile, keyfile)):
        file.open().close()  # the error of the next line does not say which file is missing
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError:
        raise EvalError(f"{certfile} and its key cannot be used; give two in PEM that belong together") from None
    return context


if __name__ == "__main__":
    sys.exit(main())
