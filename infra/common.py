"""What the programs share: the stack's settings, checked before anything is created, and its outputs."""

from __future__ import annotations

import re
from collections.abc import Collection

import pulumi

from infra.errors import ConfigError, ModelError
from infra.models import DEFAULT_MODEL, choose_engine, read_model
from infra.naming import PROJECT
from infra.stored_model import StoredModel, read_stored_model
from infra.targets import Target
from service.errors import SettingsError
from service.model import Bundle
from service.settings import Settings


class StackConfig:
    """The stack's settings under `cloudtrial:`. Each is checked as it is read; `reject_unknown` refuses the rest."""

    def __init__(self) -> None:
        self._config = pulumi.Config(PROJECT)
        self._read: set[str] = set()

    def text(self, key: str, default: str, pattern: str = r".+", hint: str = "some text") -> str:
        """A setting that matches `pattern` whole; `hint` says what that means."""
        value = self._get(key)
        if value is None:
            return default
        if not re.fullmatch(pattern, value):
            raise _invalid(key, value, hint)
        return value

    def optional(self, key: str, pattern: str, hint: str) -> str | None:
        """As `text`, without a default."""
        return self.text(key, "", pattern, hint) or None

    def required(self, key: str, pattern: str, hint: str) -> str:
        """As `text`, for what has no safe default."""
        if self._get(key) is None:
            raise ConfigError(f"cloudtrial:{key} is not set: pulumi config set cloudtrial:{key} VALUE, {hint}")
        return self.text(key, "", pattern, hint)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(key)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise _invalid(key, value, f"a whole number from {low} to {high}")
        return int(value)

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """One of the choices."""
        value = self._get(key)
        if value is None:
            return default
        if value not in choices:
            raise _invalid(key, value, f"one of {', '.join(choices)}")
        return value

    def flag(self, key: str) -> bool:
        """A setting that is true or, without it, false."""
        return self.choice(key, "false", ("true", "false")) == "true"

    def stored_model(self, target: Target) -> StoredModel | None:
        """The model that `model` names in `modelStore`, as it is now; None without a store."""
        url, reference = self._get("modelStore"), self._get("model")
        try:
            return read_stored_model(url, reference, target)
        except ModelError as error:
            raise ConfigError(str(error)) from None

    def model(self, stored: StoredModel | None = None) -> Bundle:
        """The model that is served: the store's, or a folder of models/, which is then shipped."""
        if stored:
            return stored.bundle
        try:
            return read_model(self._get("model") or DEFAULT_MODEL)
        except ModelError as error:
            raise ConfigError(f"cloudtrial:model: {error}") from None

    def engine(self, model: Bundle) -> str:
        """The inference engine, one of the model's; without a setting its default."""
        try:
            return choose_engine(model, self._get("engine"))
        except ModelError as error:
            raise ConfigError(f"cloudtrial:engine: {error}") from None

    def api_token(self) -> pulumi.Output[str] | None:
        """The token that every POST must carry, as a secret; None where there is none."""
        value = self._get("apiToken")
        if value is None:
            return None
        if not pulumi.runtime.is_config_secret(f"{PROJECT}:apiToken"):
            raise ConfigError("cloudtrial:apiToken is stored in clear: set it with --secret")
        try:
            Settings.from_env({"API_TOKEN": value})
        except SettingsError as error:
            raise ConfigError(f"cloudtrial:apiToken is refused by the service: {error}") from None
        return pulumi.Output.secret(value)

    def access_env(self, api_token: pulumi.Output[str] | None) -> dict[str, str]:
        """The variables that say who may read what: status with the token alone, answers on pages of other origins."""
        env = {}
        if self.flag("protectStatus"):
            if api_token is None:
                raise ConfigError(
                    "cloudtrial:protectStatus needs a token: pulumi config set --secret cloudtrial:apiToken VALUE"
                )
            env["PROTECT_STATUS"] = "1"
        if value := self._get("allowedOrigins"):
            try:
                origins = Settings.from_env({"ALLOWED_ORIGINS": value}).allowed_origins
            except SettingsError as error:
                raise ConfigError(f"cloudtrial:allowedOrigins is refused by the service: {error}") from None
            env["ALLOWED_ORIGINS"] = ",".join(origins)
        return env

    def revision(self) -> dict[str, str]:
        """A variable that the service ignores: another value makes the platform start anew."""
        value = self.optional("revision", r"[a-z0-9]{1,40}", "up to 40 of a-z and 0-9")
        return {"REVISION": value} if value else {}

    def reject_unknown(self) -> None:
        """Refuse settings that the program does not read: a misspelt one would be ignored silently."""
        keys = {key.partition(":")[2] for key in pulumi.runtime.get_config_env() if key.startswith(f"{PROJECT}:")}
        if unknown := sorted(keys - self._read):
            raise ConfigError(
                f"cloudtrial:{unknown[0]} is not a setting of this stack; it has {', '.join(sorted(self._read))}"
            )

    def _get(self, key: str) -> str | None:
        self._read.add(key)
        return self._config.get(key) or None  # an empty value is an unset one


def export_endpoint(
    target: Target,
    url: pulumi.Input[str],
    region: pulumi.Input[str],
    size: str,
    model: Bundle,
    engine: str,
    stored: StoredModel | None = None,
) -> None:
    """The outputs that every stack has, and `./cloudtrial run --stacks` reads."""
    pulumi.export("url", url)
    pulumi.export("target", target.name)
    pulumi.export("region", region)
    pulumi.export("size", size)
    pulumi.export("model", model.folder.name)
    pulumi.export("model_version", model.version(model.engine(engine).file))
    if stored:  # what `up` has proven; a stack that follows its store may serve a later one
        pulumi.export("store_version", stored.version)


def _invalid(key: str, value: str, hint: str) -> ConfigError:
    return ConfigError(f"cloudtrial:{key} is {value!r}; it has to be {hint}")
