"""Spans of the stages of an incident, for a tracer and for the metrics of the process.

Without a tracer no span is made.

The trace of an incident follows from its id, so that the spans of several processes, before and
after a restart, form one trace from the first signal to the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
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


class Meter(Protocol):
    """Counts what happens in this process, by kinds that are few."""

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Measures how long the context lasts."""
        ...

    def signals(self, dispositions: Iterable[str]) -> None:
        """Accepted signals, by how they were handled."""
        ...


_OFF = nullcontext()
_tracer: Tracer | None = None
_meter: Meter | None = None


@contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    """This process traces while the context lasts."""
    global _tracer
    before, _tracer = _tracer, tracer
    try:
        yield
    finally:
        _tracer = before


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """This process counts on this meter while the context lasts."""
    global _meter
    before, _meter = _meter, meter
    try:
        yield
    finally:
        _meter = before


def stage(name: str, incident_id: str, **facts: str) -> AbstractContextManager[object]:
    """A stage of an incident, as long as the context lasts."""
    traced = _OFF if _tracer is None else _tracer.stage(name, incident_id, facts)
    return traced if _meter is None else _both(_meter.stage(name), traced)


@contextmanager
def _both(one: AbstractContextManager[object], other: AbstractContextManager[object]) -> Iterator[None]:
    with one, other:
        yield


def handled(dispositions: Iterable[str]) -> None:
    """Signals were accepted and handled so."""
    if _meter is not None:
        _meter.signals(dispositions)


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
