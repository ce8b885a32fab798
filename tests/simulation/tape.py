"""The tape: everything that happened in a simulation, in one order, written outside the product.

The database writes to it by triggers, the simulated world by itself, so that a
broken build cannot forget to mention what it did. The promises are checked
against the tape, and its hash is what makes two runs of a seed comparable.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar

from app.agent.ids import ServiceKey
from app.agent.models import SliSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What every entry carries."""

    at: float
    """Virtual seconds."""
    who: str
    """The host that did it; `world` or `people` otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentMoved(Mark):
    """A row of incidents was inserted (`before` is None), or went on to its next version."""

    incident: str
    service: str
    before: str | None
    after: str
    dry_run: bool
    owner: str | None
    """Who held the claim in that transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentMoved(Mark):
    """A row of intents was inserted (`before` is None) or changed."""

    intent: str
    incident: str
    before: str | None
    after: str
    undoes: str | None
    attempts: int
    owner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMoved(Mark):
    """A claim was given out, renewed or freed."""

    incident: str
    owner: str | None
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMoved(Mark):
    """A signal was recorded (`before` is None), or given another disposition."""

    signal: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalMoved(Mark):
    """An approval was asked for (`before` is None), answered or ended."""

    approval: str
    incident: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoAsked(Mark):
    """A person sent a request to undo the agent's last change."""

    incident: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoAnswered(Mark):
    """The answer to it: accepted, or `refused` for a reason."""

    incident: str
    by: str
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakeSet(Mark):
    """The kill switch was thrown."""

    engaged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudged(Mark):
    """An incident became due by something other than its own pass."""

    incident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampered(Mark):
    """A person changed or deleted an entry of a timeline."""

    incident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Mark):
    """A host sent a write to the world."""

    intent: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(Mark):
    """A write of the agent changed the world; `who` sent it."""

    intent: str
    action: str
    risk: str
    service: str
    token_before: str
    token_after: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedByOther(Mark):
    """Another person changed an object."""

    service: str
    token_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledByOther(Mark):
    """An autoscaler changed the number of replicas, and nothing else."""

    service: str
    token_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCalled(Mark):
    """A host is about to send a write: the last moment at which it can still refrain from it."""

    intent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadAnswered(Mark):
    """The cluster showed a service's workload."""

    service: str
    unhealthy: bool
    """With a condition, or with pods that restart."""
    whole: bool
    """Rolled out, and all replicas available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliAnswered(Mark):
    """The metric source reported a service's levels, or failed to (`sample` is None)."""

    key: ServiceKey
    asked_at: datetime
    sample: SliSample | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAnswered(Mark):
    """The metric source reported the history of a service up to `asked_at`, or refused to."""

    key: ServiceKey
    asked_at: datetime
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryAnswered(Mark):
    """The metric source reported its own state."""

    asked_at: datetime
    outage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencesAnswered(Mark):
    """The monitoring reported what people silence of a service."""

    service: str
    whole: bool
    severities: tuple[str, ...]
    """The alerts of these are silenced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswered(Mark):
    """The policy engine answered, or broke down, which its adapter turns into a deny."""

    plan_hash: str
    action: str
    answer: str
    broken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Mark):
    """People received a message."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Mark):
    """The simulation injected a misfortune."""

    kind: str
    detail: str = ""


Entry: TypeAlias = (
    IncidentMoved
    | IntentMoved
    | ClaimMoved
    | SignalMoved
    | ApprovalMoved
    | UndoAsked
    | UndoAnswered
    | BrakeSet
    | Nudged
    | Tampered
    | Sent
    | Effect
    | ChangedByOther
    | ScaledByOther
    | WriteCalled
    | WorkloadAnswered
    | SliAnswered
    | TelemetryAnswered
    | HistoryAnswered
    | SilencesAnswered
    | PolicyAnswered
    | Told
    | Fault
)

E = TypeVar("E", bound=Mark)


class Tape:
    """Entries in the order in which they happened."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.entries: list[Entry] = []
        self._listeners: list[Callable[[Entry], None]] = []

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)
        for listener in self._listeners:
            listener(entry)

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Receive each entry as it is written: how people and notifications react."""
        self._listeners.append(listener)

    def fault(self, kind: str, who: str, detail: str = "") -> None:
        self.write(Fault(at=self.now(), who=who, kind=kind, detail=detail))

    def of(self, kind: type[E]) -> Iterator[E]:
        """The entries of one kind."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    def faults(self) -> Counter[str]:
        """How often each kind of misfortune was injected."""
        return Counter(fault.kind for fault in self.of(Fault))

    def lines(self) -> Iterator[str]:
        """The tape as text, one line an entry."""
        for number, entry in enumerate(self.entries):
            fields = " ".join(
                f"{name}={getattr(entry, name)}" for name in entry.__match_args__ or _names(entry)
            )
            yield f"{number:5} {entry.at:9.3f} {entry.who:<8} {type(entry).__name__}: {fields}"

    def digest(self) -> str:
        """SHA-256 over the whole tape: equal for two runs of one seed, or the replay is not exact."""
        told = hashlib.sha256()
        for line in self.lines():
            told.update(line.encode())
        return told.hexdigest()


def _names(entry: Entry) -> tuple[str, ...]:
    """The names of an entry's own fields: what `Mark` carries stands before them on the line."""
    return tuple(name for name in type(entry).__dataclass_fields__ if name not in ("at", "who"))
