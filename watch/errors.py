"""The exception of watch/. A message is one line: what is wrong, which value, what to do."""

from __future__ import annotations


class WatchError(Exception):
    """What is asked for cannot be watched, or a program that it needs is not there."""
