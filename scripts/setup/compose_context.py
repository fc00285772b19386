"""Write .build/compose, the context that ops/compose.yaml builds the service's image from: what the clouds get.

python -m scripts.setup.compose_context [MODEL]     a bundle of models/; the default one if none is named
"""

from __future__ import annotations

import argparse

from infra.artifact import deployment_files, write_folder
from infra.models import DEFAULT_MODEL

ENGINE = "onnx"  # as compose.yaml has it: the smaller image


def main(argv: list[str] | None = None) -> None:
    """Write it, in place of an earlier one."""
    parser = argparse.ArgumentParser(prog="python -m scripts.setup.compose_context", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL")
    print(write_folder("compose", deployment_files(engine=ENGINE, model=parser.parse_args(argv).model)).path)


if __name__ == "__main__":
    main()
