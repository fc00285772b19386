"""Which values of a truth make sense, and the message for those that do not. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from eval.errors import ProfileError

DISTRIBUTIONS = ("lognormal", "gamma")
FAULTS = {  # what the oracle can do wrong -> the kind of failure that the client has to call it
    "http_4xx": "http_4xx",
    "http_429": "http_429",  # with Retry-After
    "http_5xx": "http_5xx",  # with Retry-After
    "wrong_shape": "bad_answer",  # a JSON object, but not a prediction
    "not_json": "bad_answer",
    "login": "bad_answer",  # a redirect to a login page
    "endless": "bad_answer",  # a body that never ends
    "not_http": "bad_answer",
    "hang_up": "disconnected",
    "torn": "disconnected",  # half a body
    "never": "timeout",
}

Rule = tuple[str, Callable[[Any], bool]]  # what a value has to be, and whether it is


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


NOT_NEGATIVE: Rule = ("a number, 0 or more", lambda value: _number(value) and 0 <= value < math.inf)
POSITIVE: Rule = ("a number above 0", lambda value: _number(value) and 0 < value < math.inf)
SHARE: Rule = ("a share, 0 to 1", lambda value: _number(value) and 0 <= value <= 1)
OBJECT: Rule = ("an object", lambda value: isinstance(value, Mapping))
RULES: Mapping[str, Rule] = {
    "seed": ("a whole number, 0 or more", lambda value: _whole(value) and value >= 0),
    "distribution": (f"one of {', '.join(DISTRIBUTIONS)}", lambda value: value in DISTRIBUTIONS),
    "median_ms": POSITIVE,
    "sigma": ("a number, 0 to 10", lambda value: _number(value) and 0 <= value <= 10),
    "slow_share": SHARE,
    "slow_factor": POSITIVE,
    "drift_per_minute": NOT_NEGATIVE,
    "stall_every_s": NOT_NEGATIVE,
    "stall_ms": NOT_NEGATIVE,
    "servers": (
        "a whole number above 0, or left out for as many as it takes",
        lambda value: value is None or (_whole(value) and value > 0),
    ),
    "cached_ms": (
        "a number, 0 or more, or left out for no cache",
        lambda value: value is None or NOT_NEGATIVE[1](value),
    ),
    "cold_start_ms": NOT_NEGATIVE,
    "idle_s": ("a number above 0, or left out for never", lambda value: _number(value) and value > 0),
    "faults": OBJECT,
    "retry_after_s": ("a whole number, 0 or more", lambda value: _whole(value) and value >= 0),
    "accuracy": SHARE,
    "confusion": OBJECT,
    "classes": (
        "a list of two different names or more",
        lambda value: isinstance(value, tuple) and all(isinstance(n, str) for n in value) and len(set(value)) > 1
        and len(set(value)) == len(value),
    ),
    "labels": OBJECT,
    "model_version": ("a word", lambda value: isinstance(value, str) and value.isascii() and value.isalnum()),
}  # fmt: skip


def check(facts: Mapping[str, Any]) -> None:
    """Raise ProfileError for the first value that makes no sense, by itself or beside the others."""
    for name, rule in RULES.items():
        _hold(name, facts[name], rule)
    _check_faults(facts["faults"])
    if facts["stall_ms"] and facts["stall_ms"] >= facts["stall_every_s"] * 1000:
        raise ProfileError(
            f"stall_ms is {facts['stall_ms']:g} and stall_every_s {facts['stall_every_s']:g}: "
            "it would never work; a stall has to be shorter than the time between two"
        )
    _check_classes(facts["classes"], facts["confusion"], facts["labels"])


def _hold(name: str, value: Any, rule: Rule) -> None:
    wanted, right = rule
    if not right(value):
        raise ProfileError(f"{name} is {value!r}; it has to be {wanted}")


def _check_faults(faults: Mapping[str, Any]) -> None:
    if unknown := sorted(set(faults) - set(FAULTS)):
        raise ProfileError(f"no fault is called {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    for name, share in faults.items():
        _hold(f"faults: {name}", share, SHARE)
    if (total := sum(faults.values())) > 1 + 1e-9:
        raise ProfileError(f"the faults' shares add up to {total:g}; they have to be 1 together at most")


def _check_classes(classes: tuple[str, ...], confusion: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    for name, taken_for in confusion.items():
        shares = {taken_for: 1.0} if isinstance(taken_for, str) else taken_for
        _hold(f"confusion: {name}", shares, ("a class, or an object of class and share", lambda v: OBJECT[1](v) and v))
        if unknown := [c for c in (name, *shares) if c not in classes]:
            raise ProfileError(f"confusion: no class is called {', '.join(unknown)}; there are {', '.join(classes)}")
        if name in shares:
            raise ProfileError(f"confusion: {name} cannot be mistaken for itself; set accuracy for that")
        for other, share in shares.items():
            _hold(f"confusion: {name}: {other}", share, SHARE)
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ProfileError(f"confusion: {name}: the shares add up to {sum(shares.values()):g}; they have to make 1")
    known = (f"the number of a class, 0 to {len(classes) - 1}", lambda v: _whole(v) and 0 <= v < len(classes))
    for sha256, label in labels.items():
        _hold(f"labels: {sha256}", label, known)
