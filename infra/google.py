"""What the two Google programs share: their settings, checked against the limits of Cloud Run, on which both run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_command as command
import pulumi_gcp as gcp

from infra.artifact import REPOSITORY
from infra.common import StackConfig
from infra.errors import ConfigError
from infra.readiness import wait_until_ready
from infra.size_limits import CLOUD_RUN_RANGE_MIB, MAX_CLOUD_RUN_INSTANCES, MAX_CONCURRENCY, check_cloud_run
from infra.targets import CLOUD_RUN_MEMORY_MIB, GCP_CLOUDRUN, Target
from service.model import Bundle

GRANT_TIMEOUT_S = 180  # a fresh right to call is known at most so late, almost always
EVERYONE = "allUsers"

PROJECT_ID = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
PROJECT_HINT = "a project's ID, not its name or number: 6 to 30 of a-z, 0-9 and -, a letter first and no - last"
REGION = r"[a-z]+-[a-z]+[0-9]{1,2}"
REGION_HINT = "a region such as us-central1, not a zone"
INVOKER = (
    r"allUsers|allAuthenticatedUsers|none"
    r"|(user|group|serviceAccount):[^@\s:]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
    r"|domain:[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
)
INVOKER_HINT = (
    "allUsers, allAuthenticatedUsers, user:EMAIL, group:EMAIL, serviceAccount:EMAIL, domain:NAME, or none: "
    "no one but those whom the project lets in"
)


@dataclass(frozen=True)
class GoogleSettings:
    """Region, size and invoker; every value is valid for the API."""

    project: str
    region: str
    vcpus: str  # of one instance
    memory_mib: int  # of one instance
    concurrency: int  # requests in one instance at once
    min_instances: int
    max_instances: int
    invoker: str | None  # who may call; None: this stack lets no one

    @property
    def public(self) -> bool:
        """Whether anyone may call, without a token of Google's."""
        return self.invoker == EVERYONE

    @property
    def memory(self) -> str:
        """In Google's own form; another one could show as a difference at every `up`."""
        return f"{self.memory_mib // 1024}Gi" if self.memory_mib % 1024 == 0 else f"{self.memory_mib}Mi"

    @property
    def size(self) -> str:
        """As infra/targets.py writes it."""
        number, unit = self.memory[:-2], self.memory[-2:]
        return f"{self.vcpus} vCPU, {number} {unit}B"


def read_google_settings(config: StackConfig, target: Target) -> GoogleSettings:
    """Read the settings. Raises ConfigError for one that Google would refuse, or for several that contradict."""
    invoker = config.text("invoker", EVERYONE, INVOKER, INVOKER_HINT)
    settings = GoogleSettings(
        project=_provider_setting("project", None, PROJECT_ID, PROJECT_HINT),
        region=_provider_setting("region", target.region, REGION, REGION_HINT),
        vcpus=config.choice("vcpus", f"{target.vcpus:g}", CLOUD_RUN_MEMORY_MIB),
        memory_mib=config.integer("memoryMib", target.memory_mib, *CLOUD_RUN_RANGE_MIB),
        concurrency=config.integer("concurrency", target.concurrency, 1, MAX_CONCURRENCY),
        min_instances=config.integer("minInstances", 0, 0, MAX_CLOUD_RUN_INSTANCES),
        max_instances=config.integer("maxInstances", target.max_instances, 1, MAX_CLOUD_RUN_INSTANCES),
        invoker=None if invoker == "none" else invoker,
    )
    check_cloud_run(
        settings.vcpus, settings.memory_mib, settings.concurrency, settings.min_instances, settings.max_instances
    )
    return settings


def enable_apis(*names: str) -> list[gcp.projects.Service]:
    """Switch APIs on. They stay on when the stack is destroyed: others may use them, and they cost nothing.

    Cloud Resource Manager is the first: the provider asks it for the project before it believes that another one is on.
    """
    first = _enable("cloudresourcemanager")
    return [first, *(_enable(name, first) for name in names)]


def _enable(name: str, *needed: pulumi.Resource) -> gcp.projects.Service:
    return gcp.projects.Service(
        name,
        service=f"{name}.googleapis.com",
        disable_on_destroy=False,
        opts=pulumi.ResourceOptions(depends_on=needed),
    )


def wait_for_grants(
    accounts: Sequence[gcp.serviceaccount.Account], grants: Sequence[pulumi.CustomResource]
) -> command.local.Command:
    """Wait until the grants to these accounts are known everywhere: infra/waits/google_wait.py.

    What starts at once often fails for lack of a role granted a moment ago. A recreated account has its old name but
    not its old roles, so its unique ID is a trigger.
    """
    return command.local.Command(
        "grants-settled",
        interpreter=["python3", "-c"],
        create=(REPOSITORY / "infra" / "waits" / "google_wait.py").read_text(encoding="utf-8"),
        triggers=[*(account.unique_id for account in accounts), *(grant.id for grant in grants)],
        opts=pulumi.ResourceOptions(depends_on=grants),
    )


def allow_invoker(
    service: pulumi.Input[str], settings: GoogleSettings, account: gcp.serviceaccount.Account
) -> gcp.cloudrunv2.ServiceIamMember:
    """Grant the right to call a Cloud Run service, by its name, to whom the settings name.

    To its own account where they name no one: a grant that the program drops would go at the end of an `up` that
    passes, and stay after one that fails. For the same reason the old grant goes before the new one comes.
    """
    return gcp.cloudrunv2.ServiceIamMember(
        "invoker",
        name=service,
        location=settings.region,
        role="roles/run.invoker",
        member=settings.invoker or account.member,
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )


def wait_until_serving(
    url: pulumi.Output[str],
    service: pulumi.Output[str],
    settings: GoogleSettings,
    *,
    model: Bundle,
    engine: str,
    git_sha: str,
    token: pulumi.Output[str] | None,
    triggers: Sequence[pulumi.Input[object]],
    depends_on: Sequence[pulumi.Resource],
) -> None:
    """End `up` with the proof that the Cloud Run service of this full name serves what was sent.

    Google goes on with the old revision when the new one does not get ready, and after a refresh the state agrees with
    that. So which revisions there are is asked at every `up`, and the old one cannot pass for the new one.
    """
    name = service.apply(lambda path: path.rpartition("/")[2])
    live = gcp.cloudrunv2.get_service_output(name=name, location=settings.region, project=settings.project)
    where = f" --region {settings.region} --project {settings.project}"
    wait_until_ready(
        "ready",
        url,
        model=model,
        engine=engine,
        git_sha=git_sha,
        timeout_s=GCP_CLOUDRUN.boot_timeout_s + GRANT_TIMEOUT_S,
        advice=pulumi.Output.concat(
            "Its log: gcloud run services logs read ",
            name,
            where,
            "\nUntil a new revision is ready, Google goes on with the last one that was. Another of the same: "
            "pulumi config set cloudtrial:revision WORD, and up again",
        ),
        token=token,
        env={
            "CREATED_REVISION": live.latest_created_revision,
            "READY_REVISION": live.latest_ready_revision,
            **({} if settings.public else {"IDENTITY_TOKEN": "gcloud"}),
        },
        triggers=[*triggers, live.latest_created_revision, live.latest_ready_revision],
        depends_on=depends_on,
    )


def _provider_setting(key: str, default: str | None, pattern: str, hint: str) -> str:
    """A setting of the provider's own. It has to stand in the stack's settings: the program uses it by name."""
    value = pulumi.Config("gcp").get(key) or default
    if value is None:
        raise ConfigError(f"gcp:{key} is not set: pulumi config set gcp:{key} VALUE, {hint}")
    if not re.fullmatch(pattern, value):
        raise ConfigError(f"gcp:{key} is {value!r}; it has to be {hint}")
    return value
