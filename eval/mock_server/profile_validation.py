"""Validation of a profile's values, with a message for each invalid one. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from eval.errors import ProfileError

DISTRIBUTIONS = ("lognormal", "gamma")
FAULT_ERROR_KINDS = {  # fault of the mock endpoint -> error kind that the client has to record
    "http_4xx": "http_4xx",
    "http_429": "http_429",  # with Retry-After
    "http_5xx": "http_5xx",  # with Retry-After
    "wrong_shape": "invalid_response",  # a JSON object, but not a prediction
    "not_json": "invalid_response",
    "login": "invalid_response",  # a redirect to a login page
    "endless": "invalid_response",  # a body that never ends
    "not_http": "invalid_response",
    "hang_up": "disconnected",
    "torn": "disconnected",  # half a body
    "never": "timeout",
}

Rule = tuple[str, Callable[[Any], bool]]  # what is expected of a value, and whether it is met


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


NON_NEGATIVE: Rule = ("a number, 0 or more", lambda value: _is_number(value) and 0 <= value < math.inf)
POSITIVE: Rule = ("a number above 0", lambda value: _is_number(value) and 0 < value < math.inf)
FRACTION: Rule = ("a share, 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
JSON_OBJECT: Rule = ("an object", lambda value: isinstance(value, Mapping))
RULES: Mapping[str, Rule] = {
    "seed": ("a whole number, 0 or more", lambda value: _is_int(value) and value >= 0),
    "distribution": (f"one of {', '.join(DISTRIBUTIONS)}", lambda value: value in DISTRIBUTIONS),
    "median_ms": POSITIVE,
    "sigma": ("a number, 0 to 10", lambda value: _is_number(value) and 0 <= value <= 10),
    "slow_share": FRACTION,
    "slow_factor": POSITIVE,
    "drift_per_minute": NON_NEGATIVE,
    "stall_every_s": NON_NEGATIVE,
    "stall_ms": NON_NEGATIVE,
    "servers": (
        "a whole number above 0, or left out for no limit",
        lambda value: value is None or (_is_int(value) and value > 0),
    ),
    "cached_ms": (
        "a number, 0 or more, or left out for no cache",
        lambda value: value is None or NON_NEGATIVE[1](value),
    ),
    "cold_start_ms": NON_NEGATIVE,
    "idle_s": ("a number above 0, or left out for never", lambda value: _is_number(value) and value > 0),
    "faults": JSON_OBJECT,
    "retry_after_s": ("a whole number, 0 or more", lambda value: _is_int(value) and value >= 0),
    "accuracy": FRACTION,
    "confusion": JSON_OBJECT,
    "classes": (
        "a list of at least two different names",
        lambda value: isinstance(value, tuple) and all(isinstance(n, str) for n in value) and len(set(value)) > 1
        and len(set(value)) == len(value),
    ),
    "labels": JSON_OBJECT,
    "model_version": ("a word", lambda value: isinstance(value, str) and value.isascii() and value.isalnum()),
}  # fmt: skip


def validate_profile(values: Mapping[str, Any]) -> None:
    """Raise ProfileError for the first invalid value or combination of values."""
    for name, rule in RULES.items():
        _require(name, values[name], rule)
    _check_faults(values["faults"])
    if values["stall_ms"] and values["stall_ms"] >= values["stall_every_s"] * 1000:
        raise ProfileError(
            f"stall_ms is {values['stall_ms']:g} and stall_every_s {values['stall_every_s']:g}: "
            "a stall has to be shorter than its period"
        )
    _check_classes(values["classes"], values["confusion"], values["labels"])


def _require(name: str, value: Any, rule: Rule) -> None:
    requirement, is_valid = rule
    if not is_valid(value):
        raise ProfileError(f"{name} is {value!r}; expected {requirement}")


def _check_faults(faults: Mapping[str, Any]) -> None:
    if unknown := sorted(set(faults) - set(FAULT_ERROR_KINDS)):
        raise ProfileError(f"no fault is called {', '.join(unknown)}; there are {', '.join(FAULT_ERROR_KINDS)}")
    for name, fraction in faults.items():
        _require(f"faults: {name}", fraction, FRACTION)
    if (total := sum(faults.values())) > 1 + 1e-9:
        raise ProfileError(f"the faults' shares add up to {total:g}; their sum may be 1 at most")


def _check_classes(classes: tuple[str, ...], confusion: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    for name, confused_with in confusion.items():
        fractions = {confused_with: 1.0} if isinstance(confused_with, str) else confused_with
        _require(
            f"confusion: {name}",
            fractions,
            ("a class, or an object of class and share", lambda v: JSON_OBJECT[1](v) and v),
        )
        if unknown := [c for c in (name, *fractions) if c not in classes]:
            raise ProfileError(f"confusion: no class is called {', '.join(unknown)}; there are {', '.join(classes)}")
        if name in fractions:
            raise ProfileError(f"confusion: {name} cannot be mistaken for itself; set accuracy for that")
        for other, fraction in fractions.items():
            _require(f"confusion: {name}: {other}", fraction, FRACTION)
        if abs(sum(fractions.values()) - 1) > 1e-6:
            raise ProfileError(
                f"confusion: {name}: the shares add up to {sum(fractions.values()):g}; their sum has to be 1"
            )
    class_index_rule = (
        f"the number of a class, 0 to {len(classes) - 1}",
        lambda v: _is_int(v) and 0 <= v < len(classes),
    )
    for sha256, label in labels.items():
        _require(f"labels: {sha256}", label, class_index_rule)
