"""The command line of the mock endpoint: `./cloudtrial mock-endpoint`."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from pathlib import Path

from eval.errors import EvalError
from eval.event_loop import run_with_exact_timers
from eval.mock_server.profile import EndpointProfile, parse_profile
from eval.mock_server.server import serve

EPILOG = """
A profile holds any fields of EndpointProfile (eval/mock_server/profile.py), such as
  {"seed": 1, "median_ms": 50, "sigma": 0.5, "servers": 2, "accuracy": 0.93,
   "faults": {"http_5xx": 0.01, "never": 0.001}, "cold_start_ms": 2500, "idle_s": 60}
It prints its address when it is ready, and runs until Ctrl-C or SIGTERM.
GET /mock/counts reports its requests, images, responses and instances.
"""


def main(arguments: list[str] | None = None) -> int:
    """Read the profile and serve it. Returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        profile = parse_profile(args.profile.read_bytes(), str(args.profile)) if args.profile else EndpointProfile()
        ssl_context = _ssl_context(args.certfile, args.keyfile)
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
        run_with_exact_timers(serve(profile, args.host, args.port, ssl_context))
    except (EvalError, OSError, OverflowError) as error:  # the last: of a port above 65535
        print(f"mock-endpoint: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial mock-endpoint",
        description="Serve an endpoint with set latencies, failures and accuracy, to check measurements against.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--profile", "--truth", type=Path, metavar="FILE", help="JSON (default: 20 ms, no faults, accuracy 90%%)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--core", type=int, metavar="NUMBER", help="pin the process to this core (Linux)")
    parser.add_argument("--certfile", type=Path, metavar="FILE", help="serve TLS with this certificate (PEM)")
    parser.add_argument("--keyfile", type=Path, metavar="FILE", help="its private key (default: in the same file)")
    return parser


def _ssl_context(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    """The server's TLS context, or None without a certificate. Raises EvalError or OSError."""
    if certfile is None:
        if keyfile:
            raise EvalError("--keyfile needs --certfile, the certificate of that key")
        return None
    for file in filter(None, (certfile, keyfile)):
        file.open(encoding="utf-8").close()  # the error of the next line does not say which file is missing
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError:
        raise EvalError(f"{certfile} and its key do not match or are not PEM") from None
    return context


if __name__ == "__main__":
    sys.exit(main())
