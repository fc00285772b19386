"""Serves InvokeEndpoint on this machine, until SIGTERM or Ctrl-C: `python -m infra.local.invoke_endpoint --help`."""

from __future__ import annotations

import argparse
import sys

from aiohttp import web

from infra.local.invoke_endpoint.front import Front, InvokeEndpoint
from infra.local.invoke_endpoint.process import ENDPOINT, HOST, REGION
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS

EXAMPLES = f"""
example, with a service on port 8080 that answers POST /invocations:
  .venv/bin/python -m infra.local.invoke_endpoint --port 9000 --upstream-port 8080
  AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID={TWIN_CREDENTIALS.access_key_id} \\
    AWS_SECRET_ACCESS_KEY={TWIN_CREDENTIALS.secret_access_key} ./cloudtrial run --target x=sagemaker:{ENDPOINT}@{REGION}
"""


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m infra.local.invoke_endpoint",
        description="SageMaker's InvokeEndpoint in front of a container.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--port", type=int, required=True, help="port to listen on, of this machine alone")
    parser.add_argument("--upstream-port", type=int, required=True, help="port of the container")
    parser.add_argument("--endpoint", default=ENDPOINT, help="name of the endpoint (default: %(default)s)")
    parser.add_argument("--region", default=REGION, help="that requests are signed for (default: %(default)s)")
    parser.add_argument("--serverless", action="store_true", help="with the limits of serverless inference")
    parser.add_argument("--max-concurrency", type=int, metavar="N", help="throttle requests beyond N at once")
    given = parser.parse_args()
    front = Front(given.endpoint, given.region, given.upstream_port, given.serverless, given.max_concurrency)
    try:
        web.run_app(InvokeEndpoint(front).app(), host=HOST, port=given.port, access_log=None, print=None)
    except OSError as error:
        sys.exit(f"invoke_endpoint: {error.strerror}")


if __name__ == "__main__":
    main()
