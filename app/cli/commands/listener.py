"""Printing an incident while it happens: the listener, and what was printed already.

Used by both demos, on the simulated and on a real cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app.agent.ids import ServiceKey
from app.agent.models import IncidentRecord, SliSample, TimelineEntry
from app.agent.workload import WorkloadView
from app.bootstrap import Container

_LEVELS_EVERY_SECONDS = 15.0


class StoryListener(Protocol):
    """A listener that prints the story."""

    def happened(self, at: datetime, text: str) -> None:
        """Something happened in the simulated world."""
        ...

    def levels(self, at: datetime, sli: SliSample, workload: WorkloadView | None) -> None:
        """The current service levels."""
        ...

    def entry(self, entry: TimelineEntry) -> None:
        """The agent wrote this into an incident's timeline."""
        ...


class SeenEvents:
    """What the listener has received already."""

    def __init__(self, story_listener: StoryListener, begun: datetime) -> None:
        self._story = story_listener
        self._entries: dict[str, int] = {}
        self._levels_at = begun

    def entries(self, records: Sequence[IncidentRecord]) -> None:
        """Print what was added to these incidents since the last call."""
        for record in records:
            known = self._entries.get(record.incident.id, 0)
            for entry in record.timeline[known:]:
                self._story.entry(entry)
            self._entries[record.incident.id] = len(record.timeline)

    async def levels(self, container: Container, key: ServiceKey) -> None:
        """Print the levels of the service at intervals."""
        now, world = container.clock.now(), container.world
        due = (now - self._levels_at).total_seconds() >= _LEVELS_EVERY_SECONDS
        if due and world.reader is not None and world.metrics is not None:
            self._levels_at = now
            self._story.levels(now, await world.metrics.sli(key, now), await world.reader.workload(key))
