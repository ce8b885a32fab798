"""Consent: what the owners of an object say about the agent, by label or annotation. Pure.

`self-healing-devops-agent/enabled: "false"` on the object or on its namespace
keeps the agent off; `"true"` lets it in where REQUIRE_OPT_IN asks for that. A
refusal anywhere wins. Policy asks before every action, and the executor again
right before the write; undoing the agent's own action never asks (promise 11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KEY = "self-healing-devops-agent/enabled"
_YES = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What was found on an object and on its namespace."""

    refused_by: tuple[str, ...] = ()
    """The objects whose owners keep the agent off."""
    given_by: tuple[str, ...] = ()
    unread: str | None = None
    """Why the namespace could not be read; None when it was."""


def consent_of(marks: Mapping[str, bool | None], unread: str | None = None) -> Consent:
    """The consent of objects by name, each with what `said` found on it."""
    return Consent(
        refused_by=tuple(name for name, says in marks.items() if says is False),
        given_by=tuple(name for name, says in marks.items() if says),
        unread=unread,
    )


def said(*places: Mapping[str, str]) -> bool | None:
    """What labels and annotations of one object say; None when nothing.

    Whatever is written there and is not "true" is a refusal: somebody who writes
    "no" or "off" does not mean yes.
    """
    found = [place[KEY].strip().lower() for place in places if KEY in place]
    return all(value == _YES for value in found) if found else None


def withheld(consent: Consent, *, opt_in: bool) -> str | None:
    """Why owners do not let the agent act; None when they do."""
    if consent.refused_by:
        return f"its owners keep the agent off: {KEY} on {' and '.join(consent.refused_by)}"
    if opt_in and not consent.given_by:
        if consent.unread is not None:
            return (
                f"REQUIRE_OPT_IN is set, and whether its namespace opts in cannot be read: {consent.unread}"
            )
        return f'REQUIRE_OPT_IN is set, and neither the object nor its namespace has {KEY}: "true"'
    if consent.unread is not None:
        return f"whether the owners of its namespace keep the agent off cannot be read: {consent.unread}"
    return None
