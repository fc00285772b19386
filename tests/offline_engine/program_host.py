"""Runs Pulumi programs as Pulumi's Python language host does, against an engine's address.

Each run has a process of its own, the project's folder as working folder, the program ".", and settings in
PULUMI_CONFIG. The calls are the SDK's public ones that the host's own script makes. The process is forked from this
one, which has imported the providers' libraries and nothing of the project: that takes longer than any program.

tests/offline_engine/engine.py writes a run to each line of standard input, as JSON, and reads its exit code.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from typing import Any

import pulumi
import pulumi.runtime

LIBRARIES = (
    *(f"pulumi_aws.{name}" for name in ("appautoscaling", "budgets", "cloudwatch", "ec2", "ecr", "iam", "route53")),
    *(f"pulumi_aws.{name}" for name in ("s3", "sagemaker", "ssm", "vpc")),
    *(f"pulumi_gcp.{name}" for name in ("artifactregistry", "billing", "cloudfunctionsv2", "cloudrunv2")),
    *(f"pulumi_gcp.{name}" for name in ("organizations", "projects", "secretmanager", "serviceaccount", "storage")),
    *("pulumi_command.local", "pulumi_docker_build", "pulumiverse_heroku", "obstore", "yaml"),
)


def next_run() -> dict[str, Any]:
    """In a process of its own, the next run that is asked for. The host itself ends here with its input."""
    for line in sys.stdin:
        run = json.loads(line)
        child = os.fork()
        if not child:
            return run
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def run_program() -> None:
    runpy.run_path(".", run_name="__main__")


def main() -> None:
    if os.fork():  # the host is no child of the tests, some of which count theirs
        os._exit(0)
    for name in LIBRARIES:
        hasattr(importlib.import_module(name), "args")  # most are loaded when the first name of theirs is looked up
    gc.collect()
    gc.freeze()  # or each run would look through all of them for garbage, and copy the memory that it shares
    run = next_run()
    signal.alarm(run["timeout_s"])
    output = os.open(run["output"], os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(run["env"])
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=run["address"],
            engine=run["engine"],
            project=run["project"],
            stack=run["stack"],
            parallel=8,
            dry_run=run["preview"],
            organization="organization",
            root_directory=run["root"],
        )
    )
    os.chdir(run["root"])
    sys.argv = ["."]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run_program))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        sys.exit(1)
    except Exception:
        pulumi.log.error(traceback.format_exc())
        sys.exit(1)


if __name__ == "__main__":
    main()
