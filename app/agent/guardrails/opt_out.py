"""Opt-out and opt-in of an object, by label or annotation. Pure.

`self-healing-devops-agent/enabled: "false"` on the object, on its namespace, on the
workload of the incident or on the namespace of that workload opts out; `"true"` opts in
where REQUIRE_OPT_IN is set. An opt-out anywhere wins. Policy checks it before every
action, and the executor again right before the write; undos are exempt (promise 11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KEY = "self-healing-devops-agent/enabled"
_YES = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptOut:
    """The opt-out settings found on an object, on the service's workload, and on their namespaces."""

    refused_by: tuple[str, ...] = ()
    """The objects that opt out."""
    given_by: tuple[str, ...] = ()
    unread: str | None = None
    """Why the namespace could not be read; None if it was."""


def opt_out_of(
    marks: Mapping[str, bool | None], unread: str | None = None, *, shared: bool = False
) -> OptOut:
    """The opt-out settings of objects by name, the target first, each with the result of `said`.

    A target that many services share, such as a node, is opted in only by its own setting.
    """
    own = tuple(marks)[:1]
    return OptOut(
        refused_by=tuple(name for name, says in marks.items() if says is False),
        given_by=tuple(name for name, says in marks.items() if says and not (shared and name not in own)),
        unread=unread,
    )


def said(*places: Mapping[str, str]) -> bool | None:
    """The setting in labels and annotations of one object; None if absent.

    Any value other than "true", such as "no" or "off", is an opt-out.
    """
    found = [place[KEY].strip().lower() for place in places if KEY in place]
    return all(value == _YES for value in found) if found else None


def withheld(opt_out: OptOut, *, opt_in: bool) -> str | None:
    """Why opt-out or a missing opt-in forbids an action; None if it is allowed."""
    if opt_out.refused_by:
        return f"the target opts out: {KEY} on {' and '.join(opt_out.refused_by)}"
    if opt_in and not opt_out.given_by:
        if opt_out.unread is not None:
            return f"REQUIRE_OPT_IN is set, and the opt-in of the namespace cannot be read: {opt_out.unread}"
        return f'REQUIRE_OPT_IN is set, and neither the object nor its namespace has {KEY}: "true"'
    if opt_out.unread is not None:
        return f"the opt-out of the namespace cannot be read: {opt_out.unread}"
    return None
