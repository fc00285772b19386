"""Every error of the harness.

EvalError                 a command ends with its message, one line, and exit code 1
├── ImagesError           the images cannot be had
├── EndpointError         an endpoint that is not named well, or cannot be found
├── EstimateError         a deployment that cannot be priced
├── PriceError            a price list that cannot be read
├── SourceError           a source of prices that is not of the shape it is known by
├── ProfileError          a mock endpoint's profile that makes no sense
├── BudgetExceeded        the run has cost what it may
├── NoReference           caught by the run, which goes on without
├── Unreachable           caught: becomes the reason why a target was not measured
├── InvalidResponse       caught: becomes a sample's error
├── RestartFailed         caught: becomes a sample's error
└── MalformedRequest      caught by the mock endpoint, which answers 400
"""

from __future__ import annotations


class EvalError(Exception):
    """Something that the user can mend; the message says what, which value, and what to do."""


class ImagesError(EvalError):
    """The images cannot be had, or are not what the network knows."""


class EndpointError(EvalError):
    """An endpoint that is not named well, or cannot be found."""


class EstimateError(EvalError):
    """A deployment that cannot be priced."""


class PriceError(EvalError):
    """A price list that cannot be read, or a price that it does not have."""


class SourceError(EvalError):
    """A source of prices that is not of the shape it is known by."""


class ProfileError(EvalError):
    """A profile that makes no sense; the message names the value and what would be right."""


class BudgetExceeded(EvalError):
    """The run has cost what it may."""


class ReferenceUnavailable(EvalError):
    """The reference answers cannot be had; the run goes on without parity to them."""


class Unreachable(EvalError):
    """Nothing answers there; the message begins with the kind of failure."""


class InvalidResponse(EvalError):
    """Not what the contract says; the message says what instead."""


class RestartFailed(EvalError):
    """It could not be started, or was not ready in time; one line that says why."""


class MalformedRequest(EvalError):
    """A request that cannot be read; the message says why."""
