"""Text that stays text in Markdown as GitHub renders it."""

from __future__ import annotations

import re

SPECIAL = re.compile(r"[\\`*_\[\]|~]|://|www\.", re.IGNORECASE)
REFERENCE = re.compile(r"[@#](?=\w)")  # a user or a team, an address, an issue


def escape_markdown(text: object) -> str:
    """No cell or line ends, no tag, no emphasis, no link, no formula; no address, user or issue becomes a link."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = SPECIAL.sub(lambda match: match[0][:-1] + "\\" + match[0][-1], escaped)
    return " ".join(REFERENCE.sub(r"\g<0><!-- -->", escaped).split())  # it ends the name, and is not shown
