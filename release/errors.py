"""Every exception of release/. A message is one line: what is wrong, which value, what to do.

ReleaseError            the release cannot go on; it can be resumed once that is mended
 '- CandidateBroken     the candidate itself does not start, or does not answer as it has to: the verdict is worse
"""

from __future__ import annotations


class ReleaseError(Exception):
    """The release cannot go on."""


class CandidateBroken(ReleaseError):
    """What the candidate did, as a sentence."""
