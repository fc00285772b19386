"""A store's model, NAME@ALIAS or NAME@VERSION, as a stack ships or follows it: pulled to .build/ as `up` begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from infra.artifact import BUILD_DIR, REPOSITORY
from infra.errors import ModelError
from infra.targets import AWS_EC2, GCP_CLOUDRUN, Target
from service.errors import BundleError, StoreError
from service.model import Bundle, load_bundle
from service.store_layout import ModelReference, parse_reference

FOLDER = REPOSITORY / BUILD_DIR / "stored"
BUCKET_URL = re.compile(r"(s3|gs)://([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?")
FOLLOWED_SCHEMES = {AWS_EC2.name: "s3", GCP_CLOUDRUN.name: "gs"}  # of the targets that follow a store by themselves
SCHEMES = {"s3": "s3://BUCKET or s3://BUCKET/PREFIX", "gs": "gs://BUCKET or gs://BUCKET/PREFIX"}


@dataclass(frozen=True)
class StoredModel:
    """What a reference meant when it was resolved."""

    url: str  # of the store
    reference: ModelReference
    version: str
    bundle: Bundle  # in .build/stored/VERSION/NAME

    @property
    def bucket(self) -> str:
        """The bucket of a store that is in one."""
        return bucket_of(self.url)[0]

    @property
    def prefix(self) -> str:
        """The store's place in its bucket: "" for the root, else without a slash at its ends."""
        return bucket_of(self.url)[1]

    @property
    def key_prefix(self) -> str:
        """How the keys of all objects of this model begin."""
        return f"{self.prefix}/{self.reference.name}/".removeprefix("/")


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix of a store's URL. Raises ModelError for another place, such as a folder."""
    if not (match := BUCKET_URL.fullmatch(url)):
        raise ModelError(f"{url!r} is no bucket: use {' or '.join(SCHEMES.values())}")
    return match[2], (match[3] or "").strip("/")


def read_stored_model(url: str | None, reference: str | None, target: Target) -> StoredModel | None:
    """What a stack's settings `modelStore` and `model` say of a store; None where they name none.

    Raises ModelError, which names the setting.
    """
    follows = FOLLOWED_SCHEMES.get(target.name)
    if not url:
        if reference and "@" in reference:
            raise ModelError(
                f"cloudtrial:model is {reference!r}, of a store: set cloudtrial:modelStore, or a folder of models/"
            )
        return None
    if not reference:
        raise ModelError("cloudtrial:modelStore needs cloudtrial:model NAME@ALIAS: which of its models, by which alias")
    if follows and not (BUCKET_URL.fullmatch(url) and url.startswith(f"{follows}://")):
        raise ModelError(f"cloudtrial:modelStore is {url!r}; this target follows {SCHEMES[follows]} by itself")
    try:
        return pull_model(url, reference)
    except ModelError as error:
        raise ModelError(f"cloudtrial:modelStore, cloudtrial:model: {error}") from None


def resolve_model(url: str, reference: str) -> str:
    """The version that a reference means now. Raises ModelError, in one line."""
    from store.model_store import ModelStore

    try:
        return ModelStore.open(url).resolve(reference)
    except StoreError as error:
        raise ModelError(str(error)) from None


def pull_model(url: str, reference: str, into: Path | None = None) -> StoredModel:
    """Resolve and pull. The same version is the same bytes: one that lies here already is only checked.

    Raises ModelError, in one line, for a store that cannot be read and a reference that it does not have.
    """
    from store.model_store import ModelStore  # loads the clouds' client: only where a store is named

    try:
        wanted = parse_reference(reference)
        store = ModelStore.open(url)
        version = store.resolve(reference)
        folder = (into or FOLDER) / version / wanted.name
        store.pull(f"{wanted.name}@{version}", folder)
        return StoredModel(url, wanted, version, load_bundle(folder))
    except (StoreError, BundleError) as error:
        raise ModelError(str(error)) from None
