"""A store of models: push a bundle, pull a version, move an alias, follow one. docs/store.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from service.errors import StoreError
from service.model import MODEL_JSON
from service.store_layout import (
    NAME,
    VERSION,
    AliasRecord,
    ModelReference,
    check_name,
    parse_reference,
    version_dir,
    version_of,
)
from store.aliases import Aliases, version_before
from store.backend import Backend, open_backend, read
from store.errors import DamagedVersion
from store.followed_folder import FollowedFolder, delete_version
from store.records import StoredFile, Version
from store.version_folder import WrongChecksum, is_whole, read_bundle, read_verified, write_version

__all__ = ["AliasRecord", "ModelStore", "Version"]

Report = Callable[[str], None]  # is told what is done, a line each


def _silent(_: str) -> None:
    pass


class ModelStore:
    """Versions of models and their aliases, in a folder or a bucket."""

    def __init__(self, backend: Backend, report: Report = _silent):
        self.backend, self.url, self.report = backend, backend.url, report

    @classmethod
    def open(cls, url: str | Path, report: Report = _silent) -> ModelStore:
        """The store at a folder's path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX. Raises StoreError."""
        return cls(open_backend(str(url)), report)

    def names(self) -> list[str]:
        """Every model that has a version."""
        return [name for name in self.backend.folders("") if NAME.fullmatch(name) and self.versions(name)]

    def versions(self, name: str) -> list[Version]:
        """The complete versions of a model, oldest first; none for a model that is not there."""
        by_version: dict[str, dict[str, StoredFile]] = {}
        for file in self.backend.files(f"{check_name(name)}/versions"):
            _, _, version, *rest = file.path.split("/")
            if len(rest) == 1 and VERSION.fullmatch(version):
                by_version.setdefault(version, {})[rest[0]] = file
        complete = [
            Version(name, version, files[MODEL_JSON].modified_at, {key: file.size_bytes for key, file in files.items()})
            for version, files in by_version.items()
            if MODEL_JSON in files
        ]
        return sorted(complete, key=lambda version: (version.pushed_at, version.version))

    def version(self, reference: ModelReference) -> Version:
        """One of them, by NAME@VERSION. Raises StoreError, which says which there are."""
        versions = self.versions(reference.name)
        for each in versions:
            if each.version == reference.version:
                return each
        there = ", ".join(each.version for each in versions) or "none"
        raise StoreError(f"{reference.name} has no version {reference.version} in {self.url}; it has {there}")

    def aliases(self, name: str) -> dict[str, AliasRecord]:
        """What each alias of a model points to."""
        return Aliases(self.backend, name).all()

    def history(self, name: str, alias: str) -> list[AliasRecord]:
        """Every move of an alias, oldest first; a damaged record is reported. Raises StoreError where there is none."""
        self._check_model(name)
        return Aliases(self.backend, name).history(alias, self.report)

    def resolve(self, reference: str) -> str:
        """The version that NAME@ALIAS or NAME@VERSION means. Raises StoreError, which says what there is."""
        return self._find(parse_reference(reference))[0]

    def read_manifest(self, reference: str) -> bytes:
        """The model.json of a version, as it was pushed. Raises StoreError."""
        return self._find(parse_reference(reference))[1]

    def push(self, folder: Path, name: str | None = None) -> Version:
        """Store a bundle under its own name, or another one; nothing is sent that is there already.

        The files first, then model.json: a version is complete once that is there. Raises BundleError or StoreError.
        """
        bundle, manifest = read_bundle(folder)
        name, version = check_name(name or bundle.name), version_of(manifest)
        base = version_dir(name, version)
        stored = {file.path for file in self.backend.files(base)}
        sha256 = hashlib.sha256(manifest).hexdigest()
        for file, digest in (*bundle.files.items(), (MODEL_JSON, sha256)):
            data = manifest if file == MODEL_JSON else read_verified(folder / file, digest)
            path = f"{base}/{file}"
            self.report(f"{'Checking' if path in stored else 'Sending'} {file}, {len(data) / 1e6:.1f} MB")
            if path in stored or not self.backend.create(path, data):
                self._verify(path, digest)
        return self.version(ModelReference(name, version=version))

    def pull(self, reference: str, folder: Path) -> Version:
        """Write a version as a bundle's folder, whole or not at all. Raises StoreError.

        A folder that has it already, with the right checksums, is left as it is; any other content is refused.
        """
        wanted = parse_reference(reference)
        version, manifest = self._find(wanted)
        found = self.version(ModelReference(wanted.name, version=version))
        base = version_dir(wanted.name, version)

        def fetch(file: str) -> Iterator[bytes]:
            self.report(f"Fetching {file}, {found.files.get(file, 0) / 1e6:.1f} MB")
            return self.backend.chunks(f"{base}/{file}")

        try:
            write_version(folder, manifest, fetch)
        except WrongChecksum as error:
            raise self._damaged(f"{base}/{error}") from None
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {error.strerror}") from None
        return found

    def follow(self, reference: str, folder: Path, keep: int = 2) -> AliasRecord | None:
        """Bring a folder up to date with an alias, as a service follows it: the version's files, then the record.

        Versions that the alias pointed to are deleted there, but for the last `keep` of each alias. A
        damaged copy of the version is replaced. Nothing is done where nothing has changed. Of NAME@VERSION, which never
        moves, the version is written, and None returned. Raises StoreError, as for the store's own folder.
        """
        if Path(self.url).expanduser().resolve() == folder.resolve():
            raise StoreError(
                f"{folder} is the store itself, whose versions stay: a service follows it as it is, with "
                f"MODEL_STORE={folder}, or names another folder with --follow"
            )
        wanted = parse_reference(reference)
        if wanted.alias is None:
            self._pull_whole(wanted.name, wanted.version or "", folder)
            return None
        self._check_model(wanted.name)
        record = Aliases(self.backend, wanted.name).current(wanted.alias)
        followed = FollowedFolder(folder, wanted.name, wanted.alias)
        if not followed.has(record):
            self._pull_whole(wanted.name, record.version, folder)
            followed.add(record)
        followed.delete_old(max(1, keep))
        return record

    def _pull_whole(self, name: str, version: str, folder: Path) -> None:
        """Write a version into the folder of a service, in place of a damaged copy. Raises StoreError."""
        target = folder / version_dir(name, version)
        if target.exists() and not is_whole(target, version):
            self.read_manifest(f"{name}@{version}")  # raises where the store has lost it, so that this copy stays
            self.report(f"{target} is damaged: fetching it again")
            delete_version(target)
        self.pull(f"{name}@{version}", target)

    def move_alias(
        self,
        name: str,
        alias: str,
        version: str,
        *,
        reason: str,
        created_by: str | None = None,
        expected: str | None = None,
    ) -> AliasRecord:
        """Let an alias point to a version; nothing is done where it does already.

        `expected`: the version that it has to point to now, or store.aliases.NO_VERSION; else StoreConflict is raised.
        """
        _, manifest = self._find(ModelReference(name, version=version))
        sha256 = hashlib.sha256(manifest).hexdigest()
        aliases = Aliases(self.backend, name)
        return aliases.move(alias, sha256, version, reason=reason, created_by=created_by, expected=expected)

    def rollback(
        self, name: str, alias: str, *, reason: str, to: str | None = None, created_by: str | None = None
    ) -> AliasRecord:
        """Let an alias point to the version before, or to an earlier one; a second rollback leads further back.

        Raises StoreConflict where somebody else moves the alias meanwhile.
        """
        versions = [record.version for record in self.history(name, alias)]
        Aliases(self.backend, name).current(alias)  # raises StoreError where that is damaged
        target = to or version_before(versions)
        if target is None:
            raise StoreError(f"{name}@{alias} has no version before {versions[-1]}, the first that it pointed to")
        if target not in versions:
            earlier = ", ".join(dict.fromkeys(versions))
            raise StoreError(f"{name}@{alias} never pointed to {target}; it pointed to {earlier}")
        return self.move_alias(name, alias, target, reason=reason, created_by=created_by, expected=versions[-1])

    def _find(self, reference: ModelReference) -> tuple[str, bytes]:
        """The version and its model.json, whose checksum is right."""
        self._check_model(reference.name)
        version = reference.version or Aliases(self.backend, reference.name).current(reference.alias or "").version
        path = f"{version_dir(reference.name, version)}/{MODEL_JSON}"
        try:
            manifest = read(self.backend, path)
        except FileNotFoundError:
            self.version(ModelReference(reference.name, version=version))
            raise self._damaged(path) from None  # it was there in the list
        if version_of(manifest) != version:
            raise self._damaged(path)
        return version, manifest

    def _check_model(self, name: str) -> None:
        if not self.backend.folders(check_name(name)):
            names = ", ".join(self.names()) or "none yet: ./cloudtrial store push FOLDER"
            raise StoreError(f"no model is called {name!r} in {self.url}; there is {names}")

    def _verify(self, path: str, digest: str) -> None:
        """Check a file that was there already. Raises StoreError."""
        actual = hashlib.sha256()
        for chunk in self.backend.chunks(path):
            actual.update(chunk)
        if actual.hexdigest() != digest:
            raise self._damaged(path)

    def _damaged(self, path: str) -> DamagedVersion:
        folder = path.rpartition("/")[0]
        return DamagedVersion(
            f"{self.url}/{path} is not what was pushed: its checksum is wrong; delete {folder} there and push it again"
        )
