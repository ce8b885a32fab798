"""Who says something to the agent: a name, the roles it was given, and by which door it came. Pure.

Every door (API, command line, pages, chat) makes a `Person` of what it knows for
certain; whatever weighs an answer reads that, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Door(StrEnum):
    """By which way a person speaks to the agent."""

    API = "api"
    CLI = "cli"
    PAGE = "page"
    SLACK = "slack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who answers, brakes or releases."""

    name: str
    roles: frozenset[str] = frozenset()
    """What the sign-on, the token or the configuration gives them; never what they say themselves."""
    door: Door = Door.API
    verified: bool = False
    """Proved by a token, a sign-on or a signature; otherwise taken at their word, on a loopback address."""
