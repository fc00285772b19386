"""Every error of the harness.

EvalError                 a command ends with its message, one line, and exit code 1
├── ImagesError           the images are not available
├── EndpointError         an endpoint with an invalid name, or that cannot be found
├── EstimateError         a deployment that cannot be priced
├── PriceError            a price list that cannot be read
├── SourceError           a source of prices in an unexpected format
├── ProfileError          a mock endpoint's invalid profile
├── BudgetExceeded        the run has reached its cost limit
├── WorkerLost            a process that sends requests has ended; the run ends with it
│   └── ClockUncertain    one on another machine whose clock is not known closely enough
├── ReferenceUnavailable  caught by the run, which continues without
├── Unreachable           caught: becomes the reason why a target was not measured
├── InvalidResponse       caught: becomes a sample's error
├── InvalidInput          caught: becomes the reason why a file is not used; of a response, it is passed over
├── RestartFailed         caught: becomes a sample's error
└── MalformedRequest      caught by the mock endpoint, which answers 400
"""

from __future__ import annotations


class EvalError(Exception):
    """An error that the user can fix; the message says what, which value, and what to do."""


class ImagesError(EvalError):
    """The images are not available, or do not fit the network's classes."""


class EndpointError(EvalError):
    """An endpoint with an invalid name, or that cannot be found."""


class EstimateError(EvalError):
    """A deployment that cannot be priced."""


class PriceError(EvalError):
    """A price list that cannot be read, or a price that it does not have."""


class SourceError(EvalError):
    """A source of prices in an unexpected format."""


class ProfileError(EvalError):
    """An invalid profile; the message names the value and what is expected."""


class BudgetExceeded(EvalError):
    """The run has reached its cost limit."""


class WorkerLost(EvalError):
    """A process that sends requests has ended; the run ends, and nothing is sent twice."""

    what = "worker lost"  # starts the reason why the run is not complete


class ClockUncertain(WorkerLost):
    """Requests of one on another machine could not be timed; the message says how closely its clock is known."""

    what = "clock not known"


class ReferenceUnavailable(EvalError):
    """The reference predictions are not available; the run continues without comparing to them."""


class Unreachable(EvalError):
    """The endpoint does not respond; the message starts with the kind of failure."""


class InvalidResponse(EvalError):
    """A response that violates the wire contract; the message says how."""


class InvalidInput(EvalError):
    """Data from outside that is not as expected; the message says which key, with which value."""


class RestartFailed(EvalError):
    """It could not be started, or was not ready in time; the message is one line that says why."""


class MalformedRequest(EvalError):
    """A request that cannot be read; the message says why."""
