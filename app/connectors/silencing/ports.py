"""The cluster ports, extended by the agent's own silences.

A Silence is a target like an object of the cluster: its state is the set of intents whose silences of the
service are active, and its marker is the intent. Decision and recovery after a crash therefore work as for
every other action. All other targets go to the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from app.agent.actions.silence_alerts import INCIDENT, MINUTES, silenced_service
from app.agent.freshness.own_silences import created_by
from app.agent.freshness.silences import Silence
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.guardrails.target_token import NOT_SILENCED, SILENCED, object_token
from app.agent.guardrails.workload_kinds import SILENCE
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import Action, ActionName, Intent, Rehearsal, Snapshot
from app.agent.ports.cluster import ClusterReader, ClusterRehearsal, ClusterWriter
from app.agent.ports.silences import OwnSilences, SilenceScope, SilenceWriter, WantedSilence
from app.agent.workload import ConfigRecord, ObjectRef, TargetState, WorkloadView
from app.clock import Clock
from app.errors import Conflict, Invalid

_INTENTS = "intents"


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencingReader:
    """`ClusterReader` that also reads silences."""

    cluster: ClusterReader
    silences: OwnSilences
    clock: Clock

    async def services(self) -> tuple[ServiceKey, ...]:
        return await self.cluster.services()

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        return await self.cluster.workload(key)

    async def target(self, action: Action) -> TargetState:
        ref = _silence(action.target)
        if ref is None:
            return await self.cluster.target(action)
        return _state(ref, await self.silences.own(silenced_service(ref), self.clock.now()))

    async def snapshot(self, action: Action) -> Snapshot:
        ref = _silence(action.target)
        if ref is None:
            return await self.cluster.snapshot(action)
        found = await self.silences.own(silenced_service(ref), self.clock.now())
        return Snapshot(ref=ref, token=_state(ref, found).token, body={_INTENTS: [*_intents(found)]})

    async def disruption(self, action: Action) -> Disruption | None:
        return await self.cluster.disruption(action) if _silence(action.target) is None else None

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        return await self.cluster.cordons(node)

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        return await self.cluster.load(node, rooms=rooms)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        """For a silence, the opt-out of the workload."""
        if _silence(action.target) is None:
            return await self.cluster.opt_out(action, key)
        workload = await self.cluster.workload(key)
        if workload is None:
            return OptOut()
        return await self.cluster.opt_out(replace(action, target=workload.target.ref), key)

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        return await self.cluster.config_contents(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencingRehearsal:
    """`ClusterRehearsal` that reports which alerts a silence would mute; read-only."""

    cluster: ClusterRehearsal
    silences: OwnSilences

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        ref = _silence(target.ref)
        if ref is None:
            return await self.cluster.rehearse(action, target, snapshot)
        scope = await self.silences.scope(silenced_service(ref))
        why = _refusal(scope)
        if why is not None:
            return Rehearsal(accepted=False, message=why)
        left = f", {scope.left} firing alerts of it would still notify" if scope.left else ""
        return Rehearsal(
            accepted=True,
            message=f"alerts with {scope.words} would be silenced for {_minutes(action):g} minutes: "
            f"{scope.muted} firing now{left}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SilencingWriter:
    """`ClusterWriter` that creates and expires silences; constructed only when `DRY_RUN=false`."""

    cluster: ClusterWriter
    silences: OwnSilences
    writer: SilenceWriter
    clock: Clock

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        """For a silence: read first, so that an intent creates at most one."""
        ref = _silence(target.ref)
        if ref is None:
            return await self.cluster.apply(action, intent_id, target, snapshot)
        key = silenced_service(ref)
        found = await self.silences.own(key, self.clock.now())
        if action.name is not ActionName.SILENCE_ALERTS:
            raise Invalid(f"{action.name.words} does not act on a {SILENCE}")
        if intent_id not in _intents(found):
            if _state(ref, found).token != target.token:
                raise Conflict(f"{ref} changed since it was read")
            await self._create(action, intent_id, key)
        return _state(ref, await self.silences.own(key, self.clock.now()))

    async def _create(self, action: Action, intent_id: IntentId, key: ServiceKey) -> None:
        incident, minutes = action.parameters.get(INCIDENT), _minutes(action)
        if not isinstance(incident, str):
            raise Invalid("a silence names its incident")
        scope = await self.silences.scope(key)
        why = _refusal(scope)
        if why is not None:
            raise Invalid(why)
        now = self.clock.now()
        await self.writer.create(
            WantedSilence(
                key=key,
                matchers=scope.matchers,
                starts_at=now,
                ends_at=now + timedelta(minutes=minutes),
                incident_id=IncidentId(incident),
                intent_id=intent_id,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentSilences:
    """`SilenceEnding` over the silences that name the incident."""

    silences: OwnSilences
    writer: SilenceWriter
    clock: Clock

    async def end(self, key: ServiceKey, intents: tuple[Intent, ...]) -> int:
        found = await self.silences.own(key, self.clock.now())
        mine = [one for one in found if any(created_by(intent, one) for intent in intents)]
        for one in mine:
            await self.writer.expire(one.id)
        return len(mine)


def _silence(ref: ObjectRef | None) -> ObjectRef | None:
    return ref if ref is not None and ref.kind == SILENCE else None


def _intents(found: tuple[Silence, ...]) -> tuple[str, ...]:
    return tuple(sorted({one.intent_id for one in found if one.intent_id is not None}))


def _state(ref: ObjectRef, found: tuple[Silence, ...]) -> TargetState:
    uid = f"silence:{ref.namespace}:{ref.name}"
    said = "+".join(_intents(found)) or NOT_SILENCED
    newest = found[-1].intent_id if found else None
    return TargetState(
        ref=ref,
        uid=uid,
        resource_version=said,
        token=object_token(uid, {SILENCED: said}),
        marker=newest,
        changed_by=None if found else "its end time or a person",
    )


def _refusal(scope: SilenceScope) -> str | None:
    if not scope.others:
        return None
    return f"a silence with {scope.words} would mute alerts of {', '.join(scope.others)} too"


def _minutes(action: Action) -> int:
    minutes = action.parameters.get(MINUTES)
    if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes <= 0:
        raise Invalid("the length of a silence is a positive number of minutes")
    return minutes
