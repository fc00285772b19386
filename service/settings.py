"""What the environment may set, checked once at start-up."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from service.errors import BundleError, NotInStore, SettingsError, StoreError
from service.lifecycle.followed_store import FollowedStore, Refusal, StoredVersion
from service.manifest.reader import WEIGHTS_OF
from service.model import load_bundle
from service.store_layout import ModelReference, parse_reference

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds service/ and models/
ENGINES = tuple(WEIGHTS_OF)
DEVICES = ("auto", "cpu", "cuda")  # auto: cuda where the engine's library finds a GPU
MIN_TOKEN_CHARACTERS = 16
HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
ANY_ORIGIN = "*"
MAX_DEPLOYMENT_CHARACTERS = 80
MAX_THREADS = 10_000
SPARE_THREADS = 16  # beyond those whose images fill the queue and a pass: they refuse what comes on top
# Variables that a platform sets in every process -> its name; the first whose variables are all there counts
PLATFORMS = {
    ("DYNO",): "Heroku",
    ("K_SERVICE", "FUNCTION_TARGET"): "Google Cloud Functions",
    ("K_SERVICE",): "Google Cloud Run",
}
_ORIGIN = re.compile(
    r"(http://(?!.*:80$)|https://(?!.*:443$))([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?"
)


@dataclass(frozen=True)
class Settings:
    """The service's settings, each from the environment variable of the same name in capitals."""

    host: str = "0.0.0.0"  # address to listen on; a name is looked up
    port: int = 8080
    # Predictions in progress at once, from the whole body to the answer; unset: enough to fill the queue and a pass
    web_threads: int = 288
    # For a head to come, and for a connection at rest: longer than the fronts keep theirs (nginx 60 s, Heroku's router
    # 90 s), so that they close first. Where clients connect directly, 10 is better.
    keep_alive_s: int = 100
    engine: str = "torch"  # unset: the first of ENGINES that the model has a file for
    device: str = "auto"
    model_dir: Path = ROOT / "models" / "resnet18-cifar10"  # a relative value counts from ROOT
    max_queue: int = 256  # images in the queue; beyond it, 503. Of single images the 800 open connections are the limit
    batch_max: int = 16  # images in one forward pass
    batch_wait_ms: float = 1.0  # how long after a pass the next one waits for its callers to come back; 0: not at all
    api_token: str | None = None  # bearer token that every POST must carry
    git_sha: str | None = None  # what was deployed, for /version
    deployment: str | None = None  # where, as people write it, for /version and the page; unset: what PLATFORMS finds
    protect_status: bool = False  # /version and /metrics need the token, too
    allowed_origins: tuple[str, ...] = ()  # of web pages elsewhere that may read the answers (CORS); "*": of all
    # A folder with versions of models (docs/switch.md), which something else keeps up to date; in place of MODEL_DIR
    model_store: Path | None = None
    model: ModelReference | None = None  # NAME@ALIAS or NAME@VERSION there; the service follows an alias's moves
    model_poll_s: float = 10.0  # between two looks; 0: only when a management call says so
    manage_token: str | None = None  # bearer token of the calls that change the model; unset: there is no /v2
    feedback_memory: int = 10_000  # predictions that can still be judged by POST /feedback; 0: none, and no buttons
    keep_images: Path | None = None  # folder for images whose true class was said, by class; unset: none is kept
    keep_images_mb: int = 1000  # that it may hold; then no more is kept
    # Not set, but found:
    stored: StoredVersion | None = None  # what `model` led to; its folder is model_dir
    refusal: Refusal | None = None  # why what `model` leads to by now is not served
    fallback_model_dir: Path | None = None  # what model_dir would be without a store, where there is one
    any_engine: bool = False  # without ENGINE, another model may run with another engine

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. Raises SettingsError with the variable, its value and the values that are allowed."""
        store = ROOT / env["MODEL_STORE"] if env.get("MODEL_STORE") else None
        model = _reference(env) if store else None
        fallback_model_dir = ROOT / (env.get("MODEL_DIR") or cls.model_dir)
        stored, refusal = _find(store, model) if store and model else (None, None)
        model_dir = stored.folder if stored else fallback_model_dir
        engine = env.get("ENGINE") or _engine_of(model_dir)
        if engine not in ENGINES:
            raise SettingsError(f"ENGINE is {engine!r}; use one of: {', '.join(ENGINES)}")
        device = env.get("DEVICE") or cls.device
        if device not in DEVICES:
            raise SettingsError(f"DEVICE is {device!r}; use one of: {', '.join(DEVICES)}")
        token = _token(env, "API_TOKEN")
        manage_token = _token(env, "MANAGE_TOKEN")
        if token is not None and token == manage_token:
            raise SettingsError("MANAGE_TOKEN is API_TOKEN: whoever may predict could change the model; use another")
        protect_status = _whole(env, "PROTECT_STATUS", 0, 0, 1) == 1
        if protect_status and token is None:
            raise SettingsError("PROTECT_STATUS is '1' without a token; set API_TOKEN, or use 0")
        max_queue = _whole(env, "MAX_QUEUE", cls.max_queue, 1, 100_000)
        batch_max = _whole(env, "BATCH_MAX", cls.batch_max, 1, 1024)
        threads = max(cls.web_threads, max_queue + batch_max + SPARE_THREADS)
        feedback_memory = _whole(env, "FEEDBACK_MEMORY", cls.feedback_memory, 0, 1_000_000)
        keep_images = _folder(env, "KEEP_IMAGES")
        if keep_images and not feedback_memory:
            raise SettingsError("KEEP_IMAGES is set, but FEEDBACK_MEMORY is 0, so none would be kept; unset one")
        return cls(
            host=_address(env, "HOST", cls.host),
            port=_whole(env, "PORT", cls.port, 1, 65535),
            web_threads=_whole(env, "WEB_THREADS", min(threads, MAX_THREADS), 1, MAX_THREADS),
            keep_alive_s=_whole(env, "KEEP_ALIVE_S", cls.keep_alive_s, 1, 3600),
            engine=engine,
            device=device,
            model_dir=model_dir,
            max_queue=max_queue,
            batch_max=batch_max,
            batch_wait_ms=_number(env, "BATCH_WAIT_MS", cls.batch_wait_ms, 1000, "milliseconds"),
            api_token=token,
            git_sha=env.get("GIT_SHA") or None,
            deployment=_deployment(env, "DEPLOYMENT"),
            protect_status=protect_status,
            allowed_origins=_origins(env, "ALLOWED_ORIGINS"),
            model_store=store,
            model=model,
            model_poll_s=_number(env, "MODEL_POLL_S", cls.model_poll_s, 86_400, "seconds"),
            manage_token=manage_token,
            feedback_memory=feedback_memory,
            keep_images=keep_images,
            keep_images_mb=_whole(env, "KEEP_IMAGES_MB", cls.keep_images_mb, 1, 1_000_000),
            stored=stored,
            refusal=refusal,
            fallback_model_dir=fallback_model_dir if store else None,
            any_engine=bool(store) and not env.get("ENGINE"),
        )

    def serving(self, folder: Path, stored: StoredVersion | None, refusal: Refusal) -> Settings:
        """The same with another bundle, in place of one that is refused."""
        engine = _engine_of(folder) if self.any_engine else self.engine
        return replace(self, model_dir=folder, stored=stored, refusal=refusal, engine=engine)


def _engine_of(model_dir: Path) -> str:
    """Where ENGINE is not set: torch, or for a model without a file for it, onnx."""
    with suppress(BundleError):  # the start says what is wrong with it
        engines = load_bundle(model_dir, []).engines
        return next((engine for engine in ENGINES if engine in engines), Settings.engine)
    return Settings.engine


def _address(env: Mapping[str, str], name: str, default: str) -> str:
    """An IP address, also in the brackets of a URL; a host name becomes its first address."""
    text = env.get(name) or default
    with suppress(ValueError):
        return str(ip_address(text.removeprefix("[").removesuffix("]")))
    hint = "use an IP address or a name of this machine, 0.0.0.0 or :: for all of its addresses"
    if not HOST_NAME.fullmatch(text):
        raise SettingsError(f"{name} is {text!r}; {hint}; the port is set by PORT")
    try:
        return str(socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise SettingsError(f"{name} is {text!r}, which has no address ({error.strerror}); {hint}") from None


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise SettingsError(f"{name} is {text!r}; use a whole number from {low} to {high}")
    return int(text)


def _token(env: Mapping[str, str], name: str) -> str | None:
    token = env.get(name) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError(f"{name} does not fit a header; use printable ASCII characters without spaces")
    if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
        hint = f"use at least {MIN_TOKEN_CHARACTERS}, such as those of `openssl rand -hex 16`"
        raise SettingsError(f"{name} has {len(token)} characters and can be guessed; {hint}")
    return token


def _reference(env: Mapping[str, str]) -> ModelReference:
    """What MODEL names in the store."""
    if not (text := env.get("MODEL")):
        hint = "set MODEL to NAME@ALIAS or NAME@VERSION, or unset MODEL_STORE: MODEL_DIR is served then"
        raise SettingsError(f"MODEL_STORE is set without MODEL; {hint}")
    try:
        return parse_reference(text)
    except StoreError as error:
        raise SettingsError(f"MODEL: {error}") from None


def _find(store: Path, model: ModelReference) -> tuple[StoredVersion | None, Refusal | None]:
    """What the reference leads to; or why an alias's cannot be served, which the store holds but damaged."""
    try:
        return FollowedStore(store).find(model), None
    except StoreError as error:
        if model.alias is None or isinstance(error, NotInStore):
            raise SettingsError(f"MODEL_STORE: {error}") from None
        return None, Refusal(model, None, str(error))


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    """A folder of this machine that can be written; it is made where it is not there yet."""
    if not (text := env.get(name)):
        return None
    folder = ROOT / text
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        fault = "may not be written"
    except OSError as error:
        fault = f"cannot be made: {error.strerror}"
    raise SettingsError(f"{name} is {text!r}, which {fault}; use a folder that this process may write")


def _number(env: Mapping[str, str], name: str, default: float, high: float, unit: str) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise SettingsError(f"{name} is {text!r}; use {unit} from 0 to {high:g}")
    return value


def _deployment(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name)
    if not text:
        return next((title for variables, title in PLATFORMS.items() if all(map(env.get, variables))), None)
    if not text.isprintable() or len(text) > MAX_DEPLOYMENT_CHARACTERS:
        raise SettingsError(f"{name} is {text!r}; use one line of at most {MAX_DEPLOYMENT_CHARACTERS} characters")
    return text


def _origins(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    origins = tuple((env.get(name) or "").replace(",", " ").split())
    for origin in origins:
        if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
            hint = f"use origins as browsers send them, such as https://example.org, or {ANY_ORIGIN} for all"
            raise SettingsError(f"{name} has {origin!r}; {hint}")
    return origins
