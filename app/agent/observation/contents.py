"""The log patterns of failing containers, and the current content of changed feature flags."""

from __future__ import annotations

import asyncio

from app.agent.batch.runs import BatchView, EndedContainer
from app.agent.evidence.cluster.flags import flags_of
from app.agent.evidence.cluster.log_patterns import LogSource, log_sources, log_sources_of_run, patterns_of
from app.agent.evidence.facts import config_map_changes
from app.agent.models import Evidence
from app.agent.observation.missing import or_missing
from app.agent.ports.cluster import BatchReader, ClusterReader, ContainerLogs
from app.agent.workload import ConfigRecord, LogPattern, LogTail


async def log_patterns(
    logs: ContainerLogs | None, batches: BatchReader | None, evidence: Evidence, missing: list[str]
) -> tuple[LogPattern, ...]:
    """The patterns of the failing containers' last lines; the lines end here."""
    if logs is None:
        return ()
    if evidence.workload is not None:
        sources = log_sources(evidence.workload, evidence)
    else:
        sources = log_sources_of_run(await _failures(batches, evidence.batch, missing))
    found = await asyncio.gather(*(_tail(logs, one, missing) for one in sources))
    # Concurrently with the loop, which continues between the steps of the reduction.
    return await asyncio.to_thread(
        lambda: tuple(
            each
            for one, tail in zip(sources, found, strict=True)
            if tail is not None
            for each in patterns_of(one, tail)
        )
    )


async def flag_contents(
    reader: ClusterReader | None, evidence: Evidence, missing: list[str]
) -> tuple[ConfigRecord, ...]:
    """The current content of each ConfigMap that changed and held feature flags when it served well."""
    changed = config_map_changes(evidence)
    names = {c.view.name for c in changed if c.last_good is not None and flags_of(c.last_good.data)}
    if not names or reader is None:
        return ()
    found = await or_missing(reader.config_contents(evidence.key), "feature flags", missing)
    return tuple(one for one in found or () if one.name in names)


async def _failures(
    batches: BatchReader | None, batch: BatchView | None, missing: list[str]
) -> tuple[EndedContainer, ...]:
    """The containers that ended with an error in the run that failed last."""
    if batch is None or batch.failed is None or batches is None:
        return ()
    reading = batches.failures(batch, batch.failed)
    return await or_missing(reading, f"pods of run {batch.failed.name}", missing) or ()


async def _tail(logs: ContainerLogs, source: LogSource, missing: list[str]) -> LogTail | None:
    reading = logs.tail(source.pod, source.container, previous=source.previous)
    return await or_missing(reading, f"logs of pod {source.pod.name}", missing)
