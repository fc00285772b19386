"""Puts what a slug is of into the slug: Procfile or heroku.yml, whose $NAMES become the deployment's values. No Pulumi.

A config var is no place for the engine: Heroku restarts the old slug with a new one at once, and the old slug has the
library and the weights of another engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from infra.artifact import BUILD_DIR, REPOSITORY, REQUIREMENTS

HERE = Path(__file__).resolve().parent


def write_dockerfile(engine: str) -> Path:
    """.build/slug/Dockerfile: the service's, without the stages of the other engine and of SageMaker.

    BuildKit passes over a stage that is not used. A builder without it runs each, and copies what is not sent here.
    """
    unused = "|".join([*(other for other in REQUIREMENTS if other != engine), "sagemaker"])
    stages = (REPOSITORY / "service" / "Dockerfile").read_text(encoding="utf-8").split("\n\n\n")
    used = [stage for stage in stages if not re.search(rf"^FROM \S+ AS ({unused})$", stage, re.MULTILINE)]
    return _write("Dockerfile", "\n\n\n".join(used))


def write_filled(name: str, env: Mapping[str, str]) -> Path:
    """.build/slug/<name>: this folder's file of that name, with `env` in place of its variables.

    Raises KeyError for a variable that `env` lacks.
    """
    return _write(name, Template((HERE / name).read_text(encoding="utf-8")).substitute(env))


def _write(name: str, text: str) -> Path:
    path = REPOSITORY / BUILD_DIR / "slug" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
