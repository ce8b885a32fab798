"""A cluster whose API server does not answer, behind every cluster port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NoReturn

from app.agent.batch.runs import BatchRun, BatchView
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, Snapshot
from app.agent.ports.cluster import ClusterEvent
from app.agent.workload import ObjectRef, TargetState
from app.errors import TransientError


class SilentCluster:
    """Every call fails as one that gets no answer in time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The names of the calls, in order."""

    def _silent(self, call: str) -> NoReturn:
        self.asked.append(call)
        raise TransientError("the API server does not answer: ConnectTimeout")

    async def services(self) -> NoReturn:
        self._silent("services")

    async def workload(self, key: ServiceKey) -> NoReturn:
        self._silent(f"workload {key}")

    async def target(self, action: Action) -> NoReturn:
        self._silent(f"target {action.target}")

    async def snapshot(self, action: Action) -> NoReturn:
        self._silent(f"snapshot {action.target}")

    async def disruption(self, action: Action) -> NoReturn:
        self._silent(f"disruption {action.target}")

    async def cordons(self, node: ObjectRef) -> NoReturn:
        self._silent(f"cordons {node}")

    async def load(self, node: ObjectRef, *, rooms: bool) -> NoReturn:
        self._silent(f"load {node} {rooms}")

    async def opt_out(self, action: Action, key: ServiceKey) -> NoReturn:
        self._silent(f"opt-out {action.target} {key}")

    async def batches(self) -> NoReturn:
        self._silent("batches")

    async def failures(self, batch: BatchView, run: BatchRun) -> NoReturn:
        self._silent(f"failures {run.name}")

    async def batch(self, key: ServiceKey) -> NoReturn:
        self._silent("batch")

    async def config_contents(self, key: ServiceKey) -> NoReturn:
        self._silent(f"config_contents {key}")

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> NoReturn:
        self._silent(f"rehearse {action.target} {target.uid} {snapshot is not None}")

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> NoReturn:
        self._silent(f"apply {action.target} {intent_id} {target.uid} {snapshot is not None}")

    async def owner(self, pod: ObjectRef) -> NoReturn:
        self._silent(f"owner {pod}")

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> NoReturn:
        self._silent(f"tail {pod} {container} {previous}")

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        self._silent("events")
        yield ClusterEvent(key=ServiceKey(environment="", service=""))  # makes it a generator
