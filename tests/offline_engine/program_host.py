"""Runs the Pulumi program of the working folder as Pulumi's Python language host does, against an engine's address.

A fresh process, the project's folder as working folder, the program ".", settings in PULUMI_CONFIG. Started by
tests/offline_engine/engine.py. The calls are the SDK's public ones that the host's own script makes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import runpy
import sys
import traceback

import pulumi
import pulumi.runtime


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("address", "project", "stack", "root", "preview"):
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_args()


def run_program() -> None:
    runpy.run_path(".", run_name="__main__")


def main() -> None:
    args = parse_arguments()
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=args.address,
            engine=args.address,
            project=args.project,
            stack=args.stack,
            parallel=8,
            dry_run=args.preview == "true",
            organization="organization",
            root_directory=args.root,
        )
    )
    os.chdir(args.root)
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
