"""Every exception of the service.

ServiceError
 |- SettingsError              an environment variable with a value that cannot be used
 |- BundleError                the model bundle is missing, incomplete, or not what its model.json says
 |- StoreError                 a model store, or a name in one, that cannot be used
 |   '- NotInStore             or what is not there
 '- Problem                    a request that cannot be answered, as an RFC 9457 problem document
     |- BadRequest         400 no image in the request, or JSON that is not JSON
     |   '- UnknownParameter  or it holds a parameter that is not understood
     |- Unauthorised       401 the bearer token is missing
     |   '- WrongToken         or wrong
     |- RequestTimeout     408 the body came too slowly
     |- TooLarge           413 body or batch over the limit
     |- Unsupported        415 not a type of image that the service reads
     |- UnprocessableImage 422 the right type, but broken, too many pixels, or values out of range
     |- UnprocessableRow   422 a row with a number missing or too many, or something that is no number
     |- ClientDisconnected 499 nobody receives this
     |- QueueFull          503 no room; carries Retry-After
     |   '- RequestAbandoned   it was queued, but waited too long
     |- ServiceUnavailable 503 the thread that runs the model has ended
     |- FeedbackProblem         feedback that is not counted
     |   |- AnswerUnknown       404 no such prediction
     |   |- OtherInstance       409 another instance has answered
     |   |- AlreadyJudged       409 something else was said of it before
     |   |- AnswerForgotten     410 it was too long ago
     |   |- UnknownInput        422 which of the answer's predictions
     |   '- UnknownLabel        422 not a class of the model that answered
     '- SwitchProblem          another model cannot be served; the present one stays
         |- ModelNotFound       404 no such model, version or alias here
         |- SwitchConflict      409 something that this service cannot do, such as to serve no model
         |- ModelRefused        422 its checksums, its self-test or its engine
         '- InsufficientStorage 507 not enough memory for it beside the present one
"""

from __future__ import annotations

import re
import reprlib

_quotation = reprlib.Repr()
_quotation.maxstring, _quotation.maxlist = 60, 4
_TEXT = re.compile(rb"[ -~]{4,20}")


def quoted(value: object) -> str:
    """What a client sent, as a message quotes it: escaped, and short, with its middle left out."""
    return _quotation.repr(value)


def quoted_start(data: bytes) -> str:
    """How data begins, where that is text; empty for other bytes, which tell a reader nothing."""
    text = _TEXT.match(data)
    return repr(text[0].decode()) if text else ""


class ServiceError(Exception):
    """The root."""


class SettingsError(ServiceError):
    pass


class BundleError(ServiceError):
    pass


class StoreError(ServiceError):
    pass


class NotInStore(StoreError):
    pass


class Problem(ServiceError):
    status = 500
    title = "Internal error"

    def __init__(self, detail: str):
        super().__init__(detail)
        self.detail = detail

    def to_json(self) -> dict:
        return {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}


class BadRequest(Problem):
    status, title = 400, "Nothing to read"


class UnknownParameter(BadRequest):
    title = "Unknown parameter"


class Unauthorised(Problem):
    status, title = 401, "Token needed"


class WrongToken(Unauthorised):
    title = "Wrong token"


class RequestTimeout(Problem):
    status, title = 408, "Too slow"


class TooLarge(Problem):
    status, title = 413, "Too large"


class Unsupported(Problem):
    status, title = 415, "Unsupported type"


class UnprocessableImage(Problem):
    status, title = 422, "Cannot be decoded"


class UnprocessableRow(Problem):
    status, title = 422, "Not a row of this model"


class ClientDisconnected(Problem):
    status, title = 499, "Client disconnected"


class QueueFull(Problem):
    status, title = 503, "Queue full"

    def __init__(self, detail: str, retry_after_s: int):
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RequestAbandoned(QueueFull):
    title = "Given up"


class ServiceUnavailable(Problem):
    status, title, retry_after_s = 503, "Not ready", 1


class FeedbackProblem(Problem):
    reason = ""  # as it is counted


class AnswerUnknown(FeedbackProblem):
    status, title, reason = 404, "No such prediction", "unknown"


class OtherInstance(FeedbackProblem):
    status, title, reason = 409, "Another instance", "other_instance"


class AlreadyJudged(FeedbackProblem):
    status, title, reason = 409, "Judged before", "contrary"


class AnswerForgotten(FeedbackProblem):
    status, title, reason = 410, "Forgotten", "forgotten"


class UnknownInput(FeedbackProblem):
    status, title, reason = 422, "No such input", "index"


class UnknownLabel(FeedbackProblem):
    status, title, reason = 422, "Not a class", "label"


class SwitchProblem(Problem):
    pass


class ModelNotFound(SwitchProblem):
    status, title = 404, "No such model"


class SwitchConflict(SwitchProblem):
    status, title = 409, "Not possible"


class ModelRefused(SwitchProblem):
    status, title = 422, "Model refused"


class InsufficientStorage(SwitchProblem):
    status, title = 507, "Not enough memory"
