"""The model bundles that can be deployed: the folders of models/, as `cloudtrial:model` and `--model` name them."""

from __future__ import annotations

from infra.errors import ModelError
from service.errors import BundleError
from service.model import MODEL_JSON, Bundle, load_bundle
from service.settings import Settings

MODELS_DIR = Settings.model_dir.parent
DEFAULT_MODEL = Settings.model_dir.name


def model_names() -> list[str]:
    """Every bundle's name."""
    return sorted(path.parent.name for path in MODELS_DIR.glob(f"*/{MODEL_JSON}"))


def read_model(name: str) -> Bundle:
    """The bundle of that name, its files unchecked. Raises ModelError, which lists what there is."""
    if name not in (names := model_names()):
        raise ModelError(f"no model is called {name!r}; models/ has {', '.join(names) or 'none'}")
    try:
        return load_bundle(MODELS_DIR / name, ())
    except BundleError as error:
        raise ModelError(str(error)) from None


def as_bundle(model: str | Bundle) -> Bundle:
    """The bundle, where a name may be given for one of models/. Raises ModelError."""
    return read_model(model) if isinstance(model, str) else model


def choose_engine(bundle: Bundle, engine: str | None = None) -> str:
    """The engine that is asked for; else the service's default where the bundle has it, else the bundle's first.

    Raises ModelError for an engine that the bundle does not have, or whose file is not there.
    """
    engines = tuple(bundle.engines)
    if engine is None:
        engine = Settings.engine if Settings.engine in engines else engines[0]
    if engine not in engines:
        raise ModelError(f"{bundle.folder.name} has no engine {engine!r}; it has {', '.join(engines)}")
    if not (bundle.folder / (file := bundle.engine(engine).file)).is_file():
        raise ModelError(f"{bundle.folder.name} lacks {file} of its engine {engine!r}: fetch the bundle again")
    return engine


def model_env(model: str, engine: str) -> dict[str, str]:
    """What every deployment sets: the engine, and the one bundle that is shipped, from the root of what is shipped."""
    return {"ENGINE": engine, "MODEL_DIR": f"models/{model}"}


def followed_env(reference: str, engine: str, folder: str) -> dict[str, str]:
    """The same for a deployment that follows a store, which is, or is kept in, a folder of that machine."""
    return {"ENGINE": engine, "MODEL_STORE": folder, "MODEL": reference}
