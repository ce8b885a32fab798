"""What follows the end of incidents in some seeds: requests to undo, and the watch over escalated incidents.

Everything here is drawn by dice of its own, and begins after the rest of a seed has ended:
the courses of seeds stay as they are without it. All processes start again first, under
settings that may hold an undo back, and with the recovery watch among their duties.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from random import Random
from typing import Any

from app.agent.models import IncidentRecord, IncidentState, OutcomeKind
from app.agent.ports.store import Store
from app.config import Settings
from app.settings.entries import FreezeSetting
from tests.simulation.faults import Kind, Odds
from tests.simulation.people import OnCall
from tests.simulation.scheduler import START
from tests.simulation.tape import Tape
from tests.simulation.world import SimulatedWorld

LASTS_SECONDS = 150.0
"""Long enough for a new holder of the duty, and for several soaks."""
_HOURS = 24.0
_WATCHED = 0.4


class Hold(StrEnum):
    """What holds requested undos back."""

    NOTHING = "nothing"
    BRAKE = "kill switch"
    FREEZE = "freeze window"
    BUDGET = "shared budget"
    BREAKER = "circuit breaker"
    CHANGED = "changed target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One person asks to undo the last change of an incident, perhaps several times."""

    after: float
    """Seconds after the processes started again."""
    draw: float
    """Which incident, as a share of all."""
    by: str
    apart: tuple[float, ...]
    """Seconds from the first request to each one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Seconds after the processes started again, of one service, or of the monitoring (None)."""

    start: float
    end: float
    service: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Afterwards:
    """What is drawn for the time after the end of all incidents."""

    watched: bool
    """Whether the seed goes on where nothing can be undone."""
    hold: Hold
    odds: Odds
    asks: tuple[Ask, ...]
    notes: tuple[float, ...]
    """When people write a note to an incident, which requests nothing."""
    well_after: tuple[float | None, ...]
    """When each service becomes healthy; None: it stays as it is."""
    silences: tuple[Stretch, ...]

    def settings(self, settings: Settings) -> Settings:
        """The settings that the processes start again with."""
        return settings.model_copy(update=dict(_HELD_BY.get(self.hold, {})))


_HELD_BY: Mapping[Hold, Mapping[str, Any]] = {
    Hold.FREEZE: {
        "freeze_windows": (FreezeSetting(name="after", hours=_HOURS, starts_at=START + timedelta(seconds=1)),)
    },
    Hold.BUDGET: {"max_actions_per_service": 1, "budget_window_seconds": 7200.0},
    Hold.BREAKER: {"circuit_failures_per_service": 1, "circuit_open_seconds": 7200.0},
}


def afterwards_of(seed: int, services: int) -> Afterwards:
    """Draw what follows in a seed."""
    dice = Random(f"afterwards/{seed}")  # noqa: S311 - a seed, no secret
    watched = dice.random() < _WATCHED
    hold = dice.choice((*Hold, Hold.NOTHING, Hold.NOTHING, Hold.BRAKE, Hold.BUDGET))
    odds = Odds.of(dice) if dice.random() < 0.4 else Odds()
    asks = tuple(
        Ask(
            after=dice.uniform(18, 90),
            draw=dice.random(),
            by=dice.choice(("the second on call", "the third on call")),
            apart=dice.choice(((0.0,), (0.0, 0.0), (0.0, 4.0, 30.0))),
        )
        for _ in range(dice.choice((1, 1, 2, 3)))
    )
    found = Afterwards(
        watched=watched,
        hold=hold,
        odds=replace(odds, braked=0.8 if hold is Hold.BRAKE else odds.braked),
        asks=asks,
        notes=tuple(dice.uniform(18, 90) for _ in range(dice.choice((0, 1)))),
        well_after=tuple(dice.choice((None, dice.uniform(0, 60))) for _ in range(services)),
        silences=tuple(
            Stretch(
                start=start,
                end=start + dice.uniform(5, 70),
                service=dice.choice((None, dice.randrange(services), dice.randrange(services))),
            )
            for start in (dice.uniform(10, 110) for _ in range(dice.choice((0, 1, 2))))
        ),
    )
    if hold is Hold.NOTHING and dice.random() < 0.3:
        return replace(found, odds=replace(odds, policy_down=0.9))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Playing:
    """Plays it in a world whose incidents have all ended."""

    plan: Afterwards
    loop: asyncio.AbstractEventLoop
    tape: Tape
    world: SimulatedWorld
    on_call: OnCall
    store: Store
    incidents: Mapping[str, str]
    """The service of each incident on record."""

    async def concerned(self) -> bool:
        """Whether a change of the agent can be undone, or in half of the seeds an incident is escalated."""
        records = [await self.store.incidents.get(known) for known in self._ids()]
        known = [record for record in records if record is not None]
        escalated = any(one.incident.state is IncidentState.ESCALATED for one in known)
        return any(_undoable(one) for one in known) or (self.plan.watched and escalated)

    def schedule(self) -> None:
        """Set everything on the loop's clock."""
        now, keys = self.loop.time(), list(self.world.services)
        for key, after in zip(keys, self.plan.well_after, strict=True):
            if after is not None:
                self.loop.call_later(after, self.world.get_well, key)
        for one in self.plan.silences:
            span = (now + one.start, now + one.end)
            if one.service is None:
                self.world.source_down.append(span)
                self.loop.call_later(one.start, self.tape.fault, Kind.OUTAGE, "world", "source down")
            else:
                self.world.services[keys[one.service]].silences.append(span)
                self.loop.call_later(one.start, self.tape.fault, Kind.SILENT, "world", "afterwards")

    async def ask(self) -> None:
        """The requests, each at its time; notes of people in between."""
        started = self.loop.time()
        acts: list[tuple[float, Ask | None]] = [(ask.after, ask) for ask in self.plan.asks]
        acts += [(after, None) for after in self.plan.notes]
        for after, ask in sorted(acts, key=lambda each: each[0]):
            await asyncio.sleep(max(0.0, started + after - self.loop.time()))
            records = [await self.store.incidents.get(known) for known in self._ids()]
            known = [record for record in records if record is not None]
            if ask is None:
                self.on_call.write_note(known[0].incident.id)
            else:
                await self._ask(ask, _chosen(known, ask.draw))

    async def _ask(self, ask: Ask, record: IncidentRecord) -> None:
        if self.plan.hold is Hold.CHANGED:
            self.tape.fault(Kind.CHANGED_BY_OTHER, "world", str(record.incident.key))
            self.world.changed_by_other(record.incident.key, recreated=False)
        if self.plan.hold is Hold.BRAKE and ask.draw < 0.3:
            self.on_call.brake(True)
            self.loop.call_later(40, self.on_call.brake, False)
        for apart in ask.apart:
            self.loop.call_later(apart, self.on_call.undo, record.incident.id, ask.by)

    def _ids(self) -> list[Any]:
        return list(self.incidents)


def _chosen(records: Sequence[IncidentRecord], draw: float) -> IncidentRecord:
    """Mostly one of those that have something to undo."""
    undoable = [record for record in records if _undoable(record)]
    among = undoable if undoable and draw < 0.9 else records
    return among[int(draw * 1e6) % len(among)]


def _undoable(record: IncidentRecord) -> bool:
    """Whether a change of the agent took place that has an undo, and was not undone."""
    undone = {one.undoes for one in record.intents}
    return any(
        one.undoes is None
        and one.action.undo is not None
        and one.id not in undone
        and one.outcome is not None
        and one.outcome.kind is OutcomeKind.DONE
        for one in record.intents
    )
