"""Drains a node, one durable step at a time.

Called by the executor for a drain, when it begins and each time it is taken up again.
Every call takes one step: the cordon, or one eviction. Before each step the reasons,
the kill switch and the guardrails are asked again. A drain that ends before its last
eviction is verified like any other, and the node uncordoned if it did not help
(promises 2, 10 and 11).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from app.agent.actions.target_parts import as_left
from app.agent.draining.steps import (
    DrainProgress,
    cordon_begun,
    cordon_done,
    drain_progress,
    eviction_begun,
)
from app.agent.evidence.format import counted
from app.agent.execution.unanswered import WriteFate, fate_of
from app.agent.guardrails.drains import NodeLoad, NodePod, eviction_of
from app.agent.guardrails.target_token import UNSCHEDULABLE, parts_of
from app.agent.models import Incident, IncidentRecord, Intent, Note, Outcome, OutcomeKind, Stage
from app.agent.ports.cluster import ClusterReader, ClusterWriter
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.workload import ObjectRef, TargetState
from app.clock import Clock
from app.durations import span
from app.errors import Conflict, NotFound, PermanentError, UnknownOutcome

WAIT = timedelta(seconds=5)
"""The time between two looks at pods that a disruption budget holds, or whose eviction got no answer."""

MAX_DRAIN = timedelta(minutes=5)
"""The longest that a drain may take; the pods that are left stay on the cordoned node."""

MAX_CORDONS = 2
"""A cordon whose effect does not show after this many attempts is escalated."""

Guard: TypeAlias = Callable[[], Awaitable[str | None]]
"""Why no new step may begin, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drain:
    """One drain with its record."""

    record: IncidentRecord
    intent: Intent
    claim: Claim
    seen: DrainProgress
    guard: Guard

    @property
    def node(self) -> ObjectRef:
        assert self.intent.action.target is not None  # noqa: S101 - a drain is planned for a node
        return self.intent.action.target


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainExecution:
    """Moves drains on."""

    store: Store
    clock: Clock
    reader: ClusterReader
    writer: ClusterWriter

    async def advance(self, record: IncidentRecord, intent: Intent, claim: Claim, guard: Guard) -> None:
        """Take the next step of a drain that is EXECUTING; finish it after the last one."""
        seen = drain_progress(record, intent.id)
        drain = _Drain(record=record, intent=intent, claim=claim, seen=seen, guard=guard)
        if seen.token is None:
            await self._cordon(drain)
        else:
            await self._evict(drain, seen.token)

    # -------------------------------------------------------- the cordon

    async def _cordon(self, drain: _Drain) -> None:
        intent, attempts = drain.intent, drain.seen.cordons
        target = await self.reader.target(intent.action)
        found = fate_of(intent, target, None)
        if found.fate is WriteFate.EXECUTED:
            await self._cordoned(drain, target)
            return
        why = None if found.fate is WriteFate.NOT_EXECUTED else found.why
        if why is None and attempts >= MAX_CORDONS:
            why = f"{attempts} attempts had no visible effect"
        why = why or await drain.guard()
        if why is not None and attempts:
            unclear = f"whether {target.ref} was cordoned by this action is unknown, and {why}"
            await self._finish(drain, OutcomeKind.UNKNOWN, f"{unclear}: manual check required")
            return
        if why is not None:
            await self._finish(drain, OutcomeKind.REFUSED, f"not started: {why}", look_anew=True)
            return
        incident = await self._save(drain, drain.record.incident, [cordon_begun(intent, self.clock.now())])
        try:
            after = await self.writer.apply(intent.action, intent.id, target, None)
        except (Conflict, UnknownOutcome):
            return  # the next step looks at the node
        except PermanentError as error:
            kind = OutcomeKind.UNKNOWN if attempts else OutcomeKind.FAILED
            await self._finish(drain, kind, f"refused by the API server: {error}")
            return
        await self._cordoned(drain, after, incident)

    async def _cordoned(self, drain: _Drain, node: TargetState, incident: Incident | None = None) -> None:
        if parts_of(node.token).get(UNSCHEDULABLE) != "true":
            by = node.changed_by or "someone else"
            why = f"{node.ref} has since been uncordoned by {by}; no pod was evicted"
            await self._finish(drain, OutcomeKind.DONE, why, token=node.token)
            return
        note = cordon_done(drain.intent, node.token, self.clock.now())
        await self._save(drain, incident or drain.record.incident, [note])

    # -------------------------------------------------------- the evictions

    async def _evict(self, drain: _Drain, left: str) -> None:
        """Evict the next pod that no budget blocks; the end if no pod is left, or the drain must stop."""
        node = await self.reader.target(drain.intent.action)
        load = await self.reader.load(drain.node, rooms=False)
        moving = load.to_evict
        if load.unread is None and not moving:
            await self._done(drain, load, left)
            return
        why = None
        if not as_left(drain.intent.action, left, node.token):
            why = f"{node.ref} was changed since by {node.changed_by or 'someone else'}"
        elif load.unread is not None:
            why = load.unread
        elif drain.seen.began_at is not None and self.clock.now() - drain.seen.began_at > MAX_DRAIN:
            why = f"{span(MAX_DRAIN)} were not enough"
        if why is not None:
            await self._stop(drain, load, left, why)
            return
        incident = drain.record.incident
        for pod in moving:
            why = await drain.guard()
            if why is not None:
                await self._stop(drain, load, left, why)
                return
            if pod.uid not in drain.seen.evictions:
                note = eviction_begun(drain.intent, pod, self.clock.now())
                incident = await self._save(drain, incident, [note])
            try:
                if await self._sent(drain, pod):
                    return
            except (NotFound, UnknownOutcome):
                break  # the pod is gone, or a later check shows whether it is
            except PermanentError as error:
                await self._stop(drain, load, left, f"refused by the API server: {error}")
                return
        waiting = replace(incident, wake_at=self.clock.now() + WAIT, failing_since=None)
        await self.store.incidents.save(drain.claim, waiting, [])

    async def _sent(self, drain: _Drain, pod: NodePod) -> bool:
        """Evict a pod; False while a disruption budget blocks the eviction."""
        state = TargetState(ref=pod.ref, uid=pod.uid, resource_version="", token=pod.uid)
        try:
            await self.writer.apply(eviction_of(drain.intent.action, pod), drain.intent.id, state, None)
        except Conflict:
            return False
        return True

    # -------------------------------------------------------- recording

    async def _done(self, drain: _Drain, load: NodeLoad, token: str) -> None:
        gone = counted(_evicted(drain.seen, load), "pod")
        message = f"Node {drain.node.name} is cordoned, and its pods are evicted ({gone})"
        await self._finish(drain, OutcomeKind.DONE, message, token=token)

    async def _stop(self, drain: _Drain, load: NodeLoad, token: str, why: str) -> None:
        """What took place stays, and is verified; a node that was changed by others is theirs."""
        gone, left = counted(_evicted(drain.seen, load), "pod"), counted(len(load.to_evict), "pod")
        message = f"Node {drain.node.name} is cordoned; {gone} evicted, {left} not: {why}"
        await self._finish(drain, OutcomeKind.DONE, message, token=token)

    async def _save(self, drain: _Drain, incident: Incident, notes: Sequence[Note]) -> Incident:
        moved = replace(incident, wake_at=None, failing_since=None)
        return await self.store.incidents.save(drain.claim, moved, notes)

    async def _finish(
        self,
        drain: _Drain,
        kind: OutcomeKind,
        message: str,
        *,
        token: str | None = None,
        look_anew: bool = False,
    ) -> None:
        intent, now = drain.intent, self.clock.now()
        note = Note(
            at=now,
            stage=Stage.EXECUTE,
            message=f"{intent.action.words} {kind}: {message}.",
            data={"intent": intent.id, "outcome": kind},
        )
        outcome = Outcome(kind=kind, message=message, at=now, look_anew=look_anew)
        await self.store.intents.finish(drain.claim, intent.id, outcome, token, [note])


def _evicted(seen: DrainProgress, load: NodeLoad) -> int:
    """How many evictions took effect: their pods are gone or terminating."""
    there = {pod.uid for pod in load.pods if pod.moves}
    return len(seen.evictions - there)
