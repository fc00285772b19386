"""Mutants of the program for Heroku."""

PROGRAM = "infra/heroku/__main__.py"

MUTANTS = {
    PROGRAM: {
        "the dyno is asked for before the build has shown what a web process is": (
            "depends_on=[build]",
            "depends_on=[app]",
        ),
        "the token is a plain config var too": (
            "config_vars={**access_env, **revision},",
            'config_vars={**access_env, **revision, "API_TOKEN": api_token or ""},',
        ),
        "a token that is taken away stays on the app": ("if api_token else {},", "if api_token else None,"),
        "the build names the app, where its UUID is needed": (
            "    app_id=app.id,\n    source=",
            "    app_id=app.name,\n    source=",
        ),
        "an absolute path: every machine builds anew": (
            "BuildSourceArgs(path=artifact.path,",
            'BuildSourceArgs(path=__import__("os").path.abspath(artifact.path),',
        ),
        "the build's version does not say what was sent": ("version=artifact.sha256[:12]", 'version="1"'),
        "the buildpack takes any Python it likes": (
            ', ".python-version": HERE / ".python-version"}',
            "}",
        ),
        "a builder that runs every stage finds nothing to copy": (
            'files["Dockerfile"] = write_dockerfile(engine)',
            "pass",
        ),
        "the slug holds what is shipped for the default engine": (
            "deployment_files(sources, engine, model=model)",
            "deployment_files(sources, model=model)",
        ),
        "the engine is a config var: the old slug is restarted with it": (
            "config_vars={**access_env, **revision},",
            "config_vars={**model_env(model.folder.name, engine), **access_env, **revision},",
        ),
        "the slug does not say what it is of": ('{"GIT_SHA": git_sha})', '{"GIT_SHA": ""})'),
        "up ends before the new dyno answers": ("    depends_on=[web],\n", "    depends_on=[app],\n"),
        "a closed status cannot be asked": ('api_token if "PROTECT_STATUS" in access_env else None', "None"),
        "a second build is not asked": ("triggers=[artifact.sha256, size]", "triggers=[size]"),
        "a buildpack in container mode": (
            '["heroku/python"], "container": None}',
            '["heroku/python"], "container": ["heroku/python"]}',
        ),
        "the region of the settings is ignored": ("    region=region,\n", "    region=TARGET.region,\n"),
        "as many dynos as a typing error asks for": ("1, MAX_DYNOS)", "1, 1000)"),
        "a misspelt setting is passed over": ("config.reject_unknown()\n", ""),
        "a URL with a slash too many": ('app.web_url.apply(lambda url: url.rstrip("/"))', "app.web_url"),
    },
}
