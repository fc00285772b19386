"""Puts what a slug is of into the slug: Procfile or heroku.yml, whose $NAMES become the deployment's values. No Pulumi.

A config var is no place for the engine: Heroku restarts the old slug with a new one at once, and the old slug has the
library and the weights of another engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from infra.artifact import BUILD_DIR, REPOSITORY

HERE = Path(__file__).resolve().parent


def write_filled(name: str, env: Mapping[str, str]) -> Path:
    """.build/slug/<name>: this folder's file of that name, with `env` in place of its variables.

    Raises KeyError for a variable that `env` lacks.
    """
    path = REPOSITORY / BUILD_DIR / "slug" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template((HERE / name).read_text(encoding="utf-8")).substitute(env), encoding="utf-8")
    return path
