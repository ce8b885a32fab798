"""Revisions and ConfigMap versions that served well or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import IncidentState
from app.agent.workload import ConfigRecord, RevisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownService:
    """A service of which something is on record, and its newest incident."""

    key: ServiceKey
    incident_id: IncidentId | None
    state: IncidentState | None
    opened_at: datetime | None


class HistoryRepository(Protocol):
    """What served well and what failed; outlives ReplicaSets and restarts."""

    async def record_revision(self, record: RevisionRecord) -> None:
        """Remember; FAILED is never overwritten by SERVED_WELL or UNKNOWN of the same template."""
        ...

    async def revisions(self, key: ServiceKey) -> tuple[RevisionRecord, ...]:
        """Newest first, at most fifty."""
        ...

    async def record_config(self, record: ConfigRecord) -> None:
        """Remember a version of a ConfigMap; at most twenty are kept for each name."""
        ...

    async def configs(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """Newest first."""
        ...

    async def services(
        self, *, environment: str | None, text: str, after: ServiceKey | None, limit: int
    ) -> Sequence[KnownService]:
        """The services on record behind `after`, by environment and name; `text` is part of the name."""
        ...
