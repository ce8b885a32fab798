"""Causes that programs of the version before do not know, written so that they can read the record.

Such a program cannot read an incident with a cause that is not in its list, nor a page with
one. On a shared database it works beside the present one during a rolling upgrade, and on the
same file after a return to it. It reads an unknown cause, with the same evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.agent.models import Cause, Incident
from app.store.database.codec import IncidentBody, part_of, read

LATER = frozenset({Cause.SERVICE_ROUTING, Cause.NETWORK_POLICY})
"""Not in the list of 0.2.0. One leaves it once no such program may use the schema."""
_NAMED = "later_cause"
"""The field beside `cause`, which older programs skip."""


def body_of(incident: Incident) -> dict[str, Any]:
    """The body of an incident as it is stored."""
    body = part_of(IncidentBody, incident)
    assert isinstance(body, dict)  # noqa: S101 - fields of a model
    for one in _with_causes(body):
        if one["cause"] in LATER:
            one |= {"cause": Cause.UNKNOWN.value, _NAMED: one["cause"]}
    return body


def read_body(value: Any) -> IncidentBody:
    """What `body_of` or a program of another version wrote; `PermanentError` if it cannot be read."""
    for one in _with_causes(value):
        named = one.get(_NAMED)
        if isinstance(named, str) and named in LATER and one["cause"] == Cause.UNKNOWN:
            one["cause"] = named
    return read(IncidentBody, value)


def _with_causes(body: Any) -> Iterator[dict[str, Any]]:
    """The parts of a body that name a cause."""
    if not isinstance(body, dict):
        return
    diagnosis = body.get("diagnosis")
    found = diagnosis.get("hypotheses") if isinstance(diagnosis, dict) else None
    for one in (*(found if isinstance(found, list) else ()), body.get("lesson")):
        if isinstance(one, dict) and "cause" in one:
            yield one
