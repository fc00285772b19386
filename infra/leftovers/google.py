"""What is left in a Google project: by labels, by the program's names, and what Google created for the stack itself.

The APIs that the program enabled stay enabled on purpose: other programs may use them, and they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

import requests
from google.auth.exceptions import GoogleAuthError

from infra.errors import ProbeError
from infra.leftovers.gcloud import condition_flag
from infra.leftovers.google_login import NO_CREDENTIALS, open_session
from infra.leftovers.http import Response, request_json
from infra.leftovers.search import GIB, Leftover, Probe, SearchResult, StackLocation, iso_date, monthly_cost, run_probes
from infra.targets import GCP_FUNCTION

BASE = "https://{api}.googleapis.com"
SOURCE_BUCKETS = ("gcf-v2-sources-", "gcf-v2-uploads-", "run-sources-")  # buckets that Google makes, each for a region
FUNCTION_IMAGES_REPOSITORY = "gcf-artifacts"  # the repository that Google creates for the images of functions


def find_leftovers(location: StackLocation, parts: tuple[str, ...], base: str = BASE) -> SearchResult:
    """Everything of the stack that is left. Raises ProbeError when Google accepts no credentials."""
    google_project = GoogleSearch(location, parts, open_session(), base)
    google_project.check_login()
    probes: dict[str, Probe] = {
        "functions": google_project.functions,
        "Cloud Run services": google_project.services,
        "image repositories": google_project.repositories,
        "buckets": google_project.buckets,
        "secrets": google_project.secrets,
        "service accounts": google_project.accounts,
        "grants to deleted accounts": google_project.grants,
    }
    if location.billing_account:
        probes["budgets"] = google_project.budgets
    if location.target is GCP_FUNCTION:
        probes |= {"Google's own buckets": google_project.source_buckets, "Google's own images": google_project.images}
    return run_probes(probes)


class GoogleSearch:
    """Probes of the stack's project and region."""

    def __init__(self, location: StackLocation, parts: tuple[str, ...], session: requests.Session, base: str) -> None:
        self.location, self.names, self._session, self._base = location, location.resource_names(parts), session, base
        self._parent = f"projects/{location.project}/locations/{location.region}"
        self._flags = f"--project {location.project} --quiet"
        self._number = ""  # the project's

    def check_login(self) -> None:
        """Raises ProbeError unless the project can be read."""
        response = self._request("GET", "cloudresourcemanager", f"v1/projects/{self.location.project}")
        if response.status == 401:
            raise ProbeError(NO_CREDENTIALS)
        if not response.ok and not _not_enabled(response):
            raise ProbeError(f"project {self.location.project}: {_message(response)}")
        self._number = response.body.get("projectNumber", "") if response.ok else ""

    def functions(self) -> Iterator[Leftover]:
        for function in self._list("cloudfunctions", f"v2/{self._parent}/functions", "functions"):
            if self._is_ours(function):
                name = _last(function["name"])
                command = f"gcloud functions delete {name} --gen2 --region {self.location.region} {self._flags}"
                since = iso_date(function.get("createTime") or function.get("updateTime"))
                yield Leftover("function", name, command, since)

    def services(self) -> Iterator[Leftover]:
        for service in self._list("run", f"v2/{self._parent}/services", "services"):
            if self._is_ours(service):
                name = _last(service["name"])
                command = f"gcloud run services delete {name} --region {self.location.region} {self._flags}"
                warm = service.get("template", {}).get("scaling", {}).get("minInstanceCount", 0)
                cost = f"{warm} instances kept warm, billed by the second" if warm else ""
                yield Leftover("Cloud Run service", name, command, iso_date(service.get("createTime")), cost)

    def repositories(self) -> Iterator[Leftover]:
        for repository in self._list(*self._all_repositories()):
            if self._is_ours(repository):
                yield self._repository(repository)

    def buckets(self) -> Iterator[Leftover]:
        for bucket in self._list("storage", "storage/v1/b", "items", {"project": self.location.project}):
            if self._is_ours(bucket):
                yield _bucket(bucket)

    def secrets(self) -> Iterator[Leftover]:
        for secret in self._list("secretmanager", f"v1/projects/{self.location.project}/secrets", "secrets"):
            if self._is_ours(secret):
                name = _last(secret["name"])
                command = f"gcloud secrets delete {name} {self._flags}"
                yield Leftover("secret", name, command, iso_date(secret.get("createTime")), "billed by version")

    def accounts(self) -> Iterator[Leftover]:
        """By name alone: a service account has no labels and no creation date."""
        for account in self._list("iam", f"v1/projects/{self.location.project}/serviceAccounts", "accounts"):
            email = account["email"]
            if email.partition("@")[0] in self.names:
                yield Leftover("service account", email, f"gcloud iam service-accounts delete {email} {self._flags}")

    def grants(self) -> Iterator[Leftover]:
        """Roles of the project granted to a deleted account: they stay listed as `deleted:`."""
        path = f"v1/projects/{self.location.project}:getIamPolicy"
        # Without a version Google answers conditional grants under made-up roles, roles/x_withcond_<hash>.
        response = self._request("POST", "cloudresourcemanager", path, json={"options": {"requestedPolicyVersion": 3}})
        if _not_enabled(response):
            return
        for binding in _checked(response).get("bindings", []):
            for member in binding.get("members", []):
                email = member.removeprefix("deleted:").removeprefix("serviceAccount:").partition("?")[0]
                if member.startswith("deleted:") and email.partition("@")[0] in self.names:
                    command = f"gcloud projects remove-iam-policy-binding {self.location.project} --member='{member}'"
                    command += f" --role={binding['role']} {condition_flag(binding.get('condition'))} --quiet"
                    yield Leftover("grant to a deleted account", f"{binding['role']} {email}", command)

    def budgets(self) -> Iterator[Leftover]:
        """By name and project: a billing account has the budgets of many projects."""
        # Of a user's credentials this API wants to know which project asks
        self._session.headers["X-Goog-User-Project"] = self.location.project
        try:
            path = f"v1/billingAccounts/{self.location.billing_account}/budgets"
            for budget in self._list("billingbudgets", path, "budgets"):
                projects = budget.get("budgetFilter", {}).get("projects")
                if budget.get("displayName") in self.names and projects == [f"projects/{self._number}"]:
                    command = (
                        f"gcloud billing budgets delete {budget['name']} --billing-project {self.location.project}"
                    )
                    yield Leftover("budget", _last(budget["name"]), f"{command} --quiet")
        finally:
            del self._session.headers["X-Goog-User-Project"]

    def source_buckets(self) -> Iterator[Leftover]:
        """Google keeps the sources of a region's functions in buckets of its own, and deletes none of them.

        Without another function a bucket is listed whole; else only the stack's own sources are.
        """
        shared = self._other_functions()
        for bucket in self._list("storage", "storage/v1/b", "items", {"project": self.location.project}):
            name = bucket["name"]
            if not name.startswith(SOURCE_BUCKETS) or self.location.region not in name:
                continue
            if not shared:
                yield replace(_bucket(bucket, "bucket of function sources"), kept_by_cloud=True)
                continue
            for part in sorted(self.names):
                path = f"storage/v1/b/{quote(name, safe='')}/o"
                for source in self._list("storage", path, "items", {"prefix": f"{part}/"}):
                    uri = f"gs://{name}/{source['name']}"
                    command, since = f"gcloud storage rm {uri}", iso_date(source.get("timeCreated"))
                    yield Leftover(
                        "function source", uri, command, since, "storage is billed by GB", kept_by_cloud=True
                    )

    def images(self) -> Iterator[Leftover]:
        """The same for the repository with the images of all functions of a region."""
        repositories = [
            r for r in self._list(*self._all_repositories()) if _last(r["name"]) == FUNCTION_IMAGES_REPOSITORY
        ]
        if repositories and not self._other_functions():
            yield self._repository(repositories[0], "repository of function images")
            return
        endings = {name.replace("-", "--") for name in self.names}  # project--id__us--central1__function--name
        for repository in repositories:
            for package in self._list("artifactregistry", f"v1/{repository['name']}/packages", "packages"):
                name = unquote(_last(package["name"]))
                if name.partition("/")[0].split("__")[-1] in endings:
                    where = f"--repository {FUNCTION_IMAGES_REPOSITORY} --location {self.location.region}"
                    command = f"gcloud artifacts packages delete {quote(name, safe='')} {where} {self._flags}"
                    yield Leftover("function image", name, command, iso_date(package.get("createTime")), "billed by GB")

    def _other_functions(self) -> bool:
        """Whether functions that are not the stack's use what Google created for the region."""
        functions = self._list("cloudfunctions", f"v2/{self._parent}/functions", "functions")
        return any(not self._is_ours(function) for function in functions)

    def _all_repositories(self) -> tuple[str, str, str]:
        return "artifactregistry", f"v1/{self._parent}/repositories", "repositories"

    def _repository(self, repository: Mapping[str, Any], kind: str = "image repository") -> Leftover:
        name = _last(repository["name"])
        command = f"gcloud artifacts repositories delete {name} --location {self.location.region} {self._flags}"
        gib = int(repository.get("sizeBytes", 0)) / GIB
        cost = monthly_cost("gcp_artifact_registry_gib_month", gib, "billed by GB") if gib else ""
        return Leftover(kind, name, command, iso_date(repository.get("createTime")), cost)

    def _is_ours(self, resource: Mapping[str, Any]) -> bool:
        """By labels; a resource without any, by name."""
        labels = resource.get("labels")
        return self.location.has_stack_tags(labels) or (not labels and _last(resource["name"]) in self.names)

    def _list(self, api: str, path: str, key: str, params: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Yields from all pages. Nothing if the API is not enabled: then no resource of its kind can exist."""
        query = dict(params or {})
        while True:
            response = self._request("GET", api, path, query)
            if _not_enabled(response) or response.status == 404:
                return
            page = _checked(response)
            yield from page.get(key, [])
            if unreachable := page.get("unreachable"):
                raise ProbeError(f"Google could not reach {', '.join(unreachable)}; try again later")
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _request(
        self, method: str, api: str, path: str, params: Mapping[str, str] | None = None, json: Any = None
    ) -> Response:
        try:
            return request_json(self._session, method, f"{self._base.format(api=api)}/{path}", params, json)
        except GoogleAuthError as error:
            raise ProbeError(f"{NO_CREDENTIALS} ({' '.join(str(error).split())})") from None


def _bucket(bucket: Mapping[str, Any], kind: str = "bucket") -> Leftover:
    name = bucket["name"]
    return Leftover(kind, name, f"gcloud storage rm --recursive gs://{name}", iso_date(bucket.get("timeCreated")),
                    "storage is billed by GB")  # fmt: skip


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _checked(response: Response) -> dict[str, Any]:
    if not response.ok:
        raise ProbeError(_message(response))
    return response.body


def _error(response: Response) -> Mapping[str, Any]:
    error = response.body.get("error") if isinstance(response.body, dict) else None
    return error if isinstance(error, dict) else {}


def _not_enabled(response: Response) -> bool:
    details: Iterable[Any] = _error(response).get("details", [])
    return response.status == 403 and any(d.get("reason") == "SERVICE_DISABLED" for d in details)


def _message(response: Response) -> str:
    return f"{response.status}: {' '.join(str(_error(response).get('message') or 'no reason given').split())}"
