"""The health of other services on the node that runs the failing pods."""

from __future__ import annotations

from app.agent.evidence.cluster.node_neighbours import neighbours_on, only_node
from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import Evidence, NodeNeighbours
from app.agent.observation.missing import or_missing
from app.agent.ports.cluster import ClusterReader
from app.agent.workload import WorkloadView
from app.bounds.deadline import deadline
from app.errors import TransientError

_READ = 200
"""The maximum number of services whose pods are compared on a node."""

_SECONDS = 10.0
"""How long the comparison may read; without a current view each read is a request."""


async def neighbours_of(
    evidence: Evidence, reader: ClusterReader | None, clusters: Clusters
) -> NodeNeighbours | None:
    """The health of other services of the cluster on the node that runs all failing pods of this service.

    None where the pods show no such node, or the services cannot all be read in time.
    """
    workload = evidence.workload
    node = None if workload is None else only_node(workload.pods, evidence.at)
    if node is None or reader is None:
        return None
    try:
        async with deadline(_SECONDS, lambda: TransientError("reading the services took too long")):
            return await _compared(reader, node, evidence, clusters)
    except TransientError:
        return None


async def _compared(
    reader: ClusterReader, node: str, evidence: Evidence, clusters: Clusters
) -> NodeNeighbours | None:
    """The services of the cluster on `node`; None where one of them cannot be read."""
    cluster, unread = clusters.of(evidence.key.environment), list[str]()
    others: list[tuple[ServiceKey, WorkloadView]] = []
    for key in sorted(await or_missing(reader.services(), "list of services", unread) or ()):
        if key == evidence.key or clusters.of(key.environment) != cluster:
            continue
        found = await or_missing(reader.workload(key), str(key), unread)
        if unread or len(others) == _READ:
            break
        if found is not None:
            others.append((key, found))
    return None if unread else neighbours_on(node, others, evidence.at)
