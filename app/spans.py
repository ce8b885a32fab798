"""Spans of the stages of an incident, for a tracer; without one they cost nothing.

The trace of an incident follows from its id, so that the spans of several processes, before and
after a restart, form one trace from the first signal to the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Protocol


class Tracer(Protocol):
    """Takes spans; none of its methods waits for anything outside or raises."""

    def stage(self, name: str, incident_id: str, facts: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span that lasts as long as the context."""
        ...

    def note(self, facts: Mapping[str, str]) -> None:
        """Add to the span of the stage under way."""
        ...

    def past(self, name: str, incident_id: str, began_ns: int, facts: Mapping[str, str]) -> None:
        """A span that ends now; `began_ns` since the epoch."""
        ...

    def ended(
        self, incident_id: str, opened_at: datetime, closed_at: datetime, facts: Mapping[str, str]
    ) -> None:
        """The span of the whole incident, the parent of all others."""
        ...


_OFF = nullcontext()
_tracer: Tracer | None = None


@contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    """This process traces while the context lasts."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


def stage(name: str, incident_id: str, **facts: str) -> AbstractContextManager[None]:
    """A stage of an incident, as long as the context lasts."""
    return _OFF if _tracer is None else _tracer.stage(name, incident_id, facts)


def note(**facts: str) -> None:
    """What became of the stage under way."""
    if _tracer is not None:
        _tracer.note(facts)


def begun() -> int:
    """The present time for `past`; 0 without a tracer."""
    return 0 if _tracer is None else time.time_ns()


def past(name: str, incident_id: str, began_ns: int, **facts: str) -> None:
    """A stage that began before its incident was known."""
    if _tracer is not None:
        _tracer.past(name, incident_id, began_ns, facts)


def ended(incident_id: str, opened_at: datetime, closed_at: datetime, **facts: str) -> None:
    """The incident ended."""
    if _tracer is not None:
        _tracer.ended(incident_id, opened_at, closed_at, facts)
