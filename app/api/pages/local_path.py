"""The redirect after sign-in: always a path of this agent."""

from __future__ import annotations

import re

HOME = "/dashboard"

_MAX_CHARS = 1_000
_LOCAL = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path of this host: printable ASCII without a backslash, which some browsers read as a slash."""


def is_local(to: str) -> bool:
    """Whether a browser that is sent there stays with this agent."""
    return len(to) <= _MAX_CHARS and _LOCAL.fullmatch(to) is not None
