"""Promise 13 over a tape: at the moment of every write a fresh reason stands, and nothing contradicts it.

Lenient where a host cannot know: what another host measured, and times under clocks that jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.agent.models import Incident, IncidentState, IntentState, Trigger
from tests.reason_oracle import Measured, Muted, Reported, Seen
from tests.simulation.scenario import EVIDENCE_MAX_AGE_SECONDS
from tests.simulation.scheduler import START
from tests.simulation.simulation import Case
from tests.simulation.tape import (
    Entry,
    IncidentMoved,
    IntentMoved,
    SignalMoved,
    SilencesAnswered,
    SliAnswered,
    WorkloadAnswered,
    WriteCalled,
)

_SLACK = 2.5
"""Seconds: clocks of hosts differ, and an answer is under way for a moment."""
_UNKNOWABLE = 200.0
"""A clock that jumps gives no age."""
_RECOVERIES = (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)


@dataclass(kw_only=True)
class _Reading:
    """What the tape has said so far."""

    services: dict[str, Reported] = field(default_factory=dict)
    of_incident: dict[str, str] = field(default_factory=dict)
    of_intent: dict[str, str] = field(default_factory=dict)
    """The service of each intent that undoes nothing."""

    def service(self, name: str) -> Reported:
        return self.services.setdefault(name, Reported(start=START))

    def note(self, case: Case, entry: Entry) -> None:
        """Take in what was reported, measured or seen, and what belongs to what."""
        match entry:
            case SignalMoved(before=None):
                record = case.signals.get(entry.signal)
                if record is not None:
                    self.service(record.signal.key.service).told(record.signal, entry.at)
            case SliAnswered():
                rate = entry.sample.error_rate if entry.sample is not None else None
                answer = Measured(at=entry.at, answered=entry.sample is not None, error_rate=rate)
                self.service(entry.key.service).rates[entry.who] = answer
            case SilencesAnswered():
                muted = Muted(whole=entry.whole, severities=frozenset(entry.severities))
                self.service(entry.service).mutes[entry.who] = muted
            case WorkloadAnswered():
                look = Seen(at=entry.at, unhealthy=entry.unhealthy, whole=entry.whole)
                self.service(entry.service).looks[entry.who] = look
            case IncidentMoved():
                self.of_incident[entry.incident] = entry.service
            case IntentMoved(undoes=None):
                self.of_intent[entry.intent] = self.of_incident[entry.incident]
            case _:
                pass


def stands_on_a_reason(case: Case) -> Iterator[str]:
    """13: what is begun or sent stands on a fresh reason, and no incident recovers while its alert fires."""
    incidents = {str(record.incident.id): record.incident for record in case.records}
    read = _Reading()
    age = EVIDENCE_MAX_AGE_SECONDS + _SLACK + (_UNKNOWABLE if case.scenario.jumps else 0.0)
    ended: set[str] = set()
    for entry in case.tape.entries:
        read.note(case, entry)
        match entry:
            case IncidentMoved() if entry.incident in ended and entry.before != IncidentState.ESCALATED:
                pass  # as it was before a request to undo
            case IncidentMoved() if _all_clear(entry, incidents) and read.service(entry.service).fires:
                yield f"{entry.incident} ended {entry.after} while its alert fired"
            case IntentMoved(undoes=None) if entry.after == IntentState.EXECUTING:
                if not read.service(read.of_intent[entry.intent]).reasons(entry.who, entry.at, age):
                    yield f"intent {entry.intent} began at {entry.at:.3f} without a fresh reason"
            case WriteCalled() if entry.intent in read.of_intent:
                if not read.service(read.of_intent[entry.intent]).reasons(entry.who, entry.at, age):
                    yield f"intent {entry.intent} was sent at {entry.at:.3f} without a fresh reason"
            case _:
                pass
        if isinstance(entry, IncidentMoved) and IncidentState(entry.after).closed:
            ended.add(entry.incident)


def _all_clear(moved: IncidentMoved, incidents: dict[str, Incident]) -> bool:
    known = incidents.get(moved.incident)
    return moved.after in _RECOVERIES and known is not None and Trigger.HIGH_ERROR_RATE in known.triggers
