"""Faults in the program for Heroku."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "heroku"
PROGRAM = "infra/heroku/__main__.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "the dyno is asked for before the build has shown what a web process is",
        PROGRAM,
        "depends_on=[build]",
        "depends_on=[app]",
    ),
    Fault(
        TARGET,
        "the token is a plain config var too",
        PROGRAM,
        'config_vars={"ENGINE": engine, **revision},',
        'config_vars={"ENGINE": engine, **revision, "API_TOKEN": api_token or ""},',
    ),
    Fault(
        TARGET,
        "a token that is taken away stays on the app",
        PROGRAM,
        "if api_token else {},",
        "if api_token else None,",
    ),
    Fault(
        TARGET,
        "the build names the app, where its UUID is needed",
        PROGRAM,
        "    app_id=app.id,\n    source=",
        "    app_id=app.name,\n    source=",
    ),
    Fault(
        TARGET,
        "an absolute path: every machine builds anew",
        PROGRAM,
        "BuildSourceArgs(path=artifact.path,",
        'BuildSourceArgs(path=__import__("os").path.abspath(artifact.path),',
    ),
    Fault(
        TARGET,
        "the build's version does not say what was sent",
        PROGRAM,
        "version=artifact.sha256[:12]",
        'version="1"',
    ),
    Fault(
        TARGET,
        "the buildpack takes any Python it likes",
        PROGRAM,
        '    "buildpack": {".python-version": HERE / ".python-version"},\n',
        '    "buildpack": {},\n',
    ),
    Fault(
        TARGET,
        "the Dockerfile lies where it cannot copy from the root",
        PROGRAM,
        ', "Dockerfile": REPOSITORY / "service" / "Dockerfile"',
        "",
    ),
    Fault(
        TARGET,
        "the slug holds what is shipped for the default engine",
        PROGRAM,
        "deployment_files(root_files, engine)",
        "deployment_files(root_files)",
    ),
    Fault(
        TARGET,
        "the image is built of the default engine's stage",
        PROGRAM,
        '"heroku.yml": MANIFESTS[engine]',
        '"heroku.yml": MANIFESTS["torch"]',
    ),
    Fault(
        TARGET,
        "a buildpack in container mode",
        PROGRAM,
        '["heroku/python"], "container": None}',
        '["heroku/python"], "container": ["heroku/python"]}',
    ),
    Fault(
        TARGET, "the region of the settings is ignored", PROGRAM, "    region=region,\n", "    region=TARGET.region,\n"
    ),
    Fault(TARGET, "as many dynos as a typing error asks for", PROGRAM, "MOST_DYNOS = 10", "MOST_DYNOS = 1000"),
    Fault(TARGET, "a misspelt setting is passed over", PROGRAM, "config.reject_unknown()\n", ""),
    Fault(
        TARGET,
        "a URL with a slash too many",
        PROGRAM,
        'app.web_url.apply(lambda url: url.rstrip("/"))',
        "app.web_url",
    ),
)
