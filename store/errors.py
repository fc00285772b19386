"""What goes wrong with a store, beside service.errors.StoreError, the root of both."""

from __future__ import annotations

from service.errors import StoreError

__all__ = ["DamagedRecord", "DamagedVersion", "StoreConflict", "StoreError"]


class StoreConflict(StoreError):
    """An alias does not point to the version that it was expected to: somebody else has moved it."""


class DamagedRecord(StoreError):
    """A record of an alias that cannot be read."""


class DamagedVersion(StoreError):
    """A file of a version that is not what was pushed."""
