"""The cluster: reading, dry runs, writing and watching, each a separate port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from app.agent.batch.runs import BatchRun, BatchView, EndedContainer
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import (
    IntentId,
    ServiceKey,
)
from app.agent.models import (
    Action,
    Rehearsal,
    Snapshot,
)
from app.agent.workload import (
    ConfigRecord,
    LogTail,
    ObjectRef,
    TargetState,
    WorkloadView,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodOwner:
    """The workload behind a pod, as the cluster says."""

    kind: str
    """The kind of the highest controller that can be read; `Pod` for a pod without one."""
    name: str
    key: ServiceKey | None = None
    """The service that it is; None for a Job, and where the agent does not look after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwatchedWorkload:
    """A workload, or a kind of workloads, that the agent does not look after."""

    what: str
    """`Deployment payments/shop`, or a whole kind."""
    why: str

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


class ClusterCoverage(Protocol):
    """Says what of the cluster the agent does not look after, although it should."""

    async def unwatched(self) -> tuple[UnwatchedWorkload, ...]:
        """The workloads of watched namespaces that are not services, and the kinds that must not be read."""
        ...


class PodOwners(Protocol):
    """Finds the workload of a pod, which the name alone does not show."""

    async def owner(self, pod: ObjectRef) -> PodOwner | None:
        """The owner of a pod; None if the pod does not exist."""
        ...


class ContainerLogs(Protocol):
    """Reads the last lines of a container; constructed only where LOG_EVIDENCE is set."""

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        """At most the last 200 lines and 64 KiB, within 2 s, oldest first.

        `previous`: of the terminated container if its log still exists, else of the running one; the answer
        says which. Raises `Forbidden`, `NotFound`, `PermanentError`, or `TransientError` for one that does
        not answer.
        """
        ...


class BatchReader(Protocol):
    """Reads Jobs and CronJobs; constructed only where WATCH_JOBS is set."""

    async def batches(self) -> tuple[BatchView, ...]:
        """Every batch of the watched namespaces that the cluster keeps a run of.

        Raises `Forbidden` without the right to list them in any namespace, `TransientError` for no
        answer.
        """
        ...

    async def batch(self, key: ServiceKey) -> BatchView | None:
        """One batch with its runs; None if no batch has that name, or the key belongs to a service."""
        ...

    async def failures(self, batch: BatchView, run: BatchRun) -> tuple[EndedContainer, ...]:
        """The containers that ended with an error in the pods of a run, of the newest pod first.

        Empty where no such pod is kept. Raises `Forbidden` without the right to list pods,
        `TransientError` for no answer.
        """
        ...


class ClusterReader(Protocol):
    """Looks at the connected clusters; never changes anything.

    The environment of a service and `cluster` of an object say which of them is meant.
    """

    async def services(self) -> tuple[ServiceKey, ...]:
        """Every service that a workload of the cluster maps to."""
        ...

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        """The workload behind a service with its revisions, pods and ConfigMaps.

        None when no workload maps to the service. Of several that share a service label each is a service
        under its own name; the shared name is `Invalid` if none of them has it: the agent does not guess.
        """
        ...

    async def target(self, action: Action) -> TargetState:
        """The current state of the object that the action would change; `NotFound` if it does not exist."""
        ...

    async def snapshot(self, action: Action) -> Snapshot:
        """What `action.target` asks for now, enough for a `restore` to put it back."""
        ...

    async def disruption(self, action: Action) -> Disruption | None:
        """How many pods a change of `action.target` may take away at once; None where it has no pods."""
        ...

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        """The nodes of the cluster that has `node`, and which of them are cordoned.

        `unread` where the agent has no right to list them.
        """
        ...

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        """The pods of a node, of every namespace, and the other nodes that are not ready.

        `unread` if the agent has no right to list them. `rooms`: with the free capacity of the other nodes,
        which reads every pod of the cluster.
        """
        ...

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        """What owners say about the agent on `action.target`, on the workload of the service, and on
        the namespaces of both."""
        ...

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """The ConfigMaps in force for a service, with their data, for the agent's history.

        `health` is UNKNOWN: judging is not the reader's business.
        """
        ...


class ClusterRehearsal(Protocol):
    """Asks the API server for the result of a change (`dryRun=All`); cannot persist one."""

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        """The server's answer, rejections and missing rights included, as a value.

        `snapshot` is given for `restore` and `revert_config` of a ConfigMap. A drain is
        rehearsed with the eviction of each pod.
        Raises `TransientError` only when the server cannot be reached.
        """
        ...


class ClusterWriter(Protocol):
    """Changes a cluster. Constructed only when `DRY_RUN=false`."""

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        """Carry out `action` on exactly the object state `target`, and mark the object with `intent_id`.

        Change and marker are one request with uid and resourceVersion as its
        preconditions, so that a duplicate has no further effect. Returns the state
        after the change. Raises `Conflict` (nothing changed, object moved on),
        `Forbidden`, `NotFound`, `Invalid`, `TransientError` (certainly not sent
        or certainly refused) or `UnknownOutcome` (sent, no answer).

        The eviction of a pod, a step of a drain, is bound only to its uid and leaves no marker; `Conflict`
        if a disruption budget allows none now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """A service's workload looks different now; the watcher says so, the observer reads it."""

    key: ServiceKey
    urgent: bool = True
    """The workload changed, or has pods that are not ready; otherwise it is reported for being there."""


class ClusterWatch(Protocol):
    """Yields the services that changed, without end."""

    def events(self) -> AsyncIterator[ClusterEvent]:
        """Every known service once at the start, then each one whose objects change.

        Survives expired versions (410) and dropped connections by listing again;
        an event may be repeated, never lost.
        """
        ...
