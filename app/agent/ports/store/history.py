"""Revisions and ConfigMap versions that served well or failed."""

from __future__ import annotations

from typing import Protocol

from app.agent.ids import ServiceKey
from app.agent.workload import ConfigRecord, RevisionRecord


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
