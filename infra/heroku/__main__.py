"""Heroku: a web dyno that Heroku builds from a tarball of what is shipped. The upload form is its front page.

Nothing here is tagged: Heroku knows neither tags nor labels. The app's name marks all that belongs to it, and
deleting the app deletes builds, releases, config vars and dynos with it.
"""

import pulumi
import pulumiverse_heroku as heroku

from infra.artifact import REPOSITORY, deployment_files, write_tar_gz
from infra.common import StackConfig, export_endpoint
from infra.git_sha import deployed_git_sha
from infra.heroku.slug import HERE, write_dockerfile, write_filled
from infra.models import model_env
from infra.readiness import wait_until_ready
from infra.size_limits import MAX_DYNOS, check_dynos
from infra.targets import HEROKU as TARGET
from infra.targets import HEROKU_SIZES

# Heroku's own schema of an app's name. Names are unique across Heroku, so there is no default.
APP_NAME = r"[a-z][a-z0-9-]{1,28}[a-z0-9]"
APP_NAME_HINT = "3 to 30 of a-z, 0-9 and -, a letter first and no - last"

# The platform that the build makes, and what it looks for at the root of the tarball.
# buildpack: requirements.txt is the engine's own lock. Torch's names its CPU build; the slug is then estimated at 306
#   to 346 MB (`make preflight STACK=heroku`), well below Heroku's limit of 1 GB; PyPI's torch would be several GB.
# container: no limit of size. Heroku always takes the Dockerfile's own folder as the build's context, and this
#   Dockerfile copies from the root, so there it goes. heroku.yml names the engine, of which the Dockerfile has a stage.
# Engine, model and commit belong to what is built, and are started with it: infra/heroku/slug.py.
STACKS = {"buildpack": "heroku-24", "container": "container"}
BUILDPACKS = {"buildpack": ["heroku/python"], "container": None}
READY_TIMEOUT_S = 180  # two boots: Heroku ends one after 60 s, and starts a dyno that crashed once more at once

# 1. Settings

config = StackConfig()
stored = config.stored_model(TARGET)  # its version is shipped; another one comes with another `up`: a release
model = config.model(stored)
engine = config.engine(model)
api_token = config.api_token()
access_env = config.access_env(api_token)
revision = config.revision()
app_name = config.required("appName", APP_NAME, APP_NAME_HINT)
region = config.choice("region", TARGET.region, ("us", "eu"))
build_by = config.choice("build", "buildpack", STACKS)
size = config.choice("size", TARGET.size, HEROKU_SIZES)
dynos = config.integer("dynos", 1, 1, MAX_DYNOS)
config.reject_unknown()
check_dynos(size, dynos)

sources = {
    "buildpack": {"Procfile": HERE / "Procfile", ".python-version": HERE / ".python-version"},
    "container": {"heroku.yml": HERE / "heroku.yml", "Dockerfile": REPOSITORY / "service" / "Dockerfile"},
}[build_by]
files = deployment_files(sources, engine, model=model)
git_sha = deployed_git_sha(files)
manifest = {"buildpack": "Procfile", "container": "heroku.yml"}[build_by]
if build_by == "container":
    files["Dockerfile"] = write_dockerfile(engine)
files[manifest] = write_filled(manifest, model_env(model.folder.name, engine) | {"GIT_SHA": git_sha})

# 2. Resources

# The service reads these variables. Another value restarts the dyno at once, before any build: only what every slug can
# run with stands here. WEB_CONCURRENCY, which the buildpack sets by the dyno's memory, may stay: the number of workers
# stands in service/server.py. The secret ones are a map of their own, there even when it is empty: a map that goes away
# leaves its variables on the app.
app = heroku.app.App(
    "app",
    name=app_name,
    region=region,
    stack=STACKS[build_by],
    buildpacks=BUILDPACKS[build_by],
    config_vars={**access_env, **revision},
    sensitive_config_vars={"API_TOKEN": api_token} if api_token else {},
)

# A build ends when Heroku has released it. Its version is the hash of the bytes sent: other bytes, another build.
artifact = write_tar_gz("heroku.tar.gz", files)
build = heroku.build.Build(
    "build",
    app_id=app.id,
    source=heroku.build.BuildSourceArgs(path=artifact.path, version=artifact.sha256[:12]),
)

# Heroku knows the process type "web" once a build has shown its Procfile or its image.
web = heroku.formation.Formation(
    "web",
    app_id=app.id,
    type="web",
    size=size,
    quantity=dynos,
    opts=pulumi.ResourceOptions(depends_on=[build]),
)

# `up` ends when the dyno is ready and runs what was sent.
url = app.web_url.apply(lambda url: url.rstrip("/"))
wait_until_ready(
    "ready",
    url,
    model=model,
    engine=engine,
    git_sha=git_sha,
    timeout_s=READY_TIMEOUT_S,
    advice=f"Its log: heroku logs --app {app_name}\nThe release before this one: heroku rollback --app {app_name}",
    token=api_token if "PROTECT_STATUS" in access_env else None,
    triggers=[artifact.sha256, size],
    depends_on=[web],
)

# 3. Outputs

export_endpoint(TARGET, url, region, size, model, engine, stored)
