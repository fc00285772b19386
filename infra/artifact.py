"""The deployment artifact: what is shipped, packed reproducibly (same files, same bytes, on any machine, at any time).

A cloud that is given the same bytes again changes nothing. So no archive holds a clock time, an owner or a path of
this machine, and files stand in it in the order of their names.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra.models import DEFAULT_MODEL, choose_engine, read_model
from service.model import MODEL_JSON, sha256

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD_DIR = Path(".build")  # from the repository's root, where `pulumi` runs; an absolute path would differ by machine
ROOT_FILES = ("main.py", "requirements.txt")  # from service/: platforms look for these at the root
# Engine -> the lock in service/ that stands at the root as requirements.txt, so that nothing installs another engine's
# library. `make lock` makes the locks of the .in files beside them.
REQUIREMENTS = {"torch": "requirements.txt", "onnx": "requirements-onnx.txt"}
# In their own folder: the one installs functions-framework, the other, with torch, what trains
OWN_LOCKS = {"gcp_function": ("torch", "onnx"), "aws_sagemaker": ("torch",)}
OWN_FILES = {"aws_sagemaker": ("training", "infra/aws_sagemaker/serve", "infra/aws_sagemaker/train")}
EXCLUDED = ("__pycache__", ".DS_Store")

FILE_MODE = 0o644
FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # zip has no earlier one
GZIP_LEVEL = 6
COPY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Artifact:
    """An archive, or a folder, ready to be shipped."""

    path: str  # relative to the repository's root
    sha256: str  # of the archive's bytes; of all names and contents for a folder


def deployment_files(
    extra: Mapping[str, Path] | None = None, engine: str | None = None, target: str = "", model: str = DEFAULT_MODEL
) -> dict[str, Path]:
    """Every file that is shipped, by its name in the archive: of models/, one bundle with one engine's own file.

    `extra` names more, and what each is copied from. `target` counts where that installs more than the others. Without
    an engine, the one that the model is served with by default. Raises ModelError.
    """
    bundle = read_model(model)
    engine = choose_engine(bundle, engine)
    files = {f"service/{name}": path for name, path in _walk(REPOSITORY / "service")}
    files |= {f"models/{model}/{name}": bundle.folder / name for name in (MODEL_JSON, *bundle.files_for(engine))}
    files |= {name: REPOSITORY / "service" / name for name in ROOT_FILES}
    folder = REPOSITORY / "infra" / target if engine in OWN_LOCKS.get(target, ()) else REPOSITORY / "service"
    files["requirements.txt"] = folder / REQUIREMENTS[engine]
    for name in OWN_FILES.get(target, ()):
        own = REPOSITORY / name
        files |= {f"{name}/{inside}": path for inside, path in _walk(own)} if own.is_dir() else {name: own}
    return dict(sorted((files | dict(extra or {})).items()))


def direct_requirements(engine: str, target: str) -> str:
    """The requirements that are named directly: the .in files behind the lock that is shipped, concatenated."""
    files = [(REPOSITORY / "service" / REQUIREMENTS[engine]).with_suffix(".in")]
    if target != "gcp_function":
        files.append(REPOSITORY / "service" / "requirements-server.in")
    if engine in OWN_LOCKS.get(target, ()):
        files.append(REPOSITORY / "infra" / target / "requirements.in")
    return "".join(path.read_text(encoding="utf-8") for path in files)


def write_tar_gz(name: str, files: Mapping[str, Path]) -> Artifact:
    """.build/<name>: a gzipped tar. Bytes depend on names and contents alone."""
    with (
        _new_file(name).open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member, path in files.items():
            info = tarfile.TarInfo(member)  # owner 0, time 0
            info.size, info.mode = path.stat().st_size, FILE_MODE
            with path.open("rb") as content:
                archive.addfile(info, content)
    return _written(name)


def write_zip(name: str, files: Mapping[str, Path]) -> Artifact:
    """.build/<name>: a zip. Bytes depend on names and contents alone."""
    with zipfile.ZipFile(_new_file(name), "w", zipfile.ZIP_DEFLATED) as archive:
        for member, path in files.items():
            info = zipfile.ZipInfo(member, FIRST_ZIP_DATE)
            info.create_system = 3  # Unix on every machine, for the mode below
            info.external_attr, info.compress_type = FILE_MODE << 16, zipfile.ZIP_DEFLATED
            info.file_size = path.stat().st_size
            with path.open("rb") as content, archive.open(info, "w") as packed:
                shutil.copyfileobj(content, packed, COPY_BYTES)
    return _written(name)


def write_folder(name: str, files: Mapping[str, Path]) -> Artifact:
    """.build/<name>/ with copies of the files, and nothing else in it."""
    root = REPOSITORY / BUILD_DIR / name
    shutil.rmtree(root, ignore_errors=True)
    for member, path in files.items():
        copy = root / member
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(FILE_MODE)
    return Artifact(f"./{BUILD_DIR / name}", digest(files))


def write_line(name: str, text: str) -> str:
    """.build/<name> with this one line. Returns its path as an archive's is given."""
    _new_file(name).write_text(f"{text}\n", encoding="utf-8")
    return f"./{BUILD_DIR / name}"


def digest(files: Mapping[str, Path]) -> str:
    """The sha256 of all names and contents."""
    total = hashlib.sha256()
    for member, path in files.items():
        total.update(f"{sha256(path)}  {member}\n".encode())
    return total.hexdigest()


def _walk(folder: Path) -> Iterable[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not set(inside.parts) & set(EXCLUDED):
            yield str(PurePosixPath(inside)), path


def _new_file(name: str) -> Path:
    path = REPOSITORY / BUILD_DIR / name
    path.parent.mkdir(exist_ok=True)
    return path


def _written(name: str) -> Artifact:
    return Artifact(f"./{BUILD_DIR / name}", sha256(REPOSITORY / BUILD_DIR / name))
