"""Gathers the inputs of a decision from store, cluster and rehearsal.

`Gatherer.question` collects everything for policy as one value; the executor uses the
single reads again right before a write. Nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import same_ground
from app.agent.evidence.restoration import serving_now
from app.agent.gitops.steps import HISTORY_ID, application_of, text_of
from app.agent.guardrails.blast_radius import too_many
from app.agent.guardrails.cordons import (
    NodeCordons,
    cordons_node,
    frees_node,
    still_needed,
    too_many_cordoned,
)
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad, cannot_drain, drains_node
from app.agent.guardrails.limits import Budget, proposed_by, standing
from app.agent.guardrails.opt_out import OptOut, withheld
from app.agent.guardrails.question import Guardrails, Question, TargetLook
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intents import begun_intents
from app.agent.models import Action, IncidentRecord, Intent, Rehearsal, Snapshot
from app.agent.ports.cluster import ClusterReader, ClusterRehearsal
from app.agent.ports.gitops import ApplicationRehearsal
from app.agent.ports.store import Store
from app.agent.workload import TargetState, WorkloadView
from app.clock import Clock
from app.errors import NotFound, PermanentError, TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedTarget:
    """The target is not in the diagnosed state: there is no question to decide."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatherer:
    """Reads the facts of one action. Without a reader, the state of the cluster is unknown."""

    store: Store
    clock: Clock
    limits: Guardrails
    reader: ClusterReader | None
    rehearsal: ClusterRehearsal | None
    applications: ApplicationRehearsal | None = None
    """Rehearses what goes through a GitOps controller."""

    async def question(self, record: IncidentRecord) -> Question | ChangedTarget:
        """Everything that the decision on the plan's next action depends on, including its rehearsal."""
        incident, plan = record.incident, record.incident.plan
        assert plan is not None  # noqa: S101 - the loop decides only where a plan stands
        action = plan.actions[incident.next_action]
        look = await self.look(action)
        if look.target is not None and not _as_diagnosed(record, action, look.target):
            by = look.target.changed_by or "someone"
            return ChangedTarget(reason=f"{action.target} was changed by {by} since the diagnosis")
        return await self._asked(record, action, look, await self._rehearse_whole(record, look))

    async def undo_question(self, record: IncidentRecord, undone: Intent, look: TargetLook) -> Question:
        """Everything that the decision on an undo depends on that a person asked for."""
        plan = record.incident.plan
        assert plan is not None  # noqa: S101 - the plan of the incident is the undo
        action = plan.actions[record.incident.next_action]
        rehearsal = None
        if application_of(action) is None and self.rehearsal is not None and look.target is not None:
            rehearsal = await self.rehearsal.rehearse(action, look.target, undone.snapshot)
        return replace(await self._asked(record, action, look, rehearsal), taken=0)

    async def _asked(
        self, record: IncidentRecord, action: Action, look: TargetLook, rehearsal: Rehearsal | None
    ) -> Question:
        incident, plan = record.incident, record.incident.plan
        assert plan is not None  # noqa: S101 - the caller has checked
        budget = await self.budget(action)
        now = self.clock.now()
        history = await self.store.budgets.recent_actions(incident.key, budget.limits, now)
        proposed = proposed_by(incident, plan.hash, action)
        return Question(
            incident=incident,
            plan=plan,
            action=action,
            target=look.target,
            target_problem=look.problem,
            rehearsal=rehearsal,
            taken=len(begun_intents(record)),
            brake=await self.store.guardrails.kill_switch(),
            disruption=await self._disruption(action, look),
            cordons=await self._cordons(action),
            load=await self._load(action, rooms=True),
            needed_by=await self.needed_by(incident.id, action),
            opt_out=await self._opt_out(incident.key, action, look),
            standing=standing(proposed, history, budget.limits, budget.known_services, now),
            at=now,
        )

    async def look(self, action: Action) -> TargetLook:
        """The live state of the action's target; neither state nor problem if it has no target."""
        if not ACTIONS[action.name].kinds:
            return TargetLook()
        if self.reader is None or action.target is None:
            return TargetLook(problem="no cluster connected")
        try:
            return TargetLook(target=await self.reader.target(action))
        except PermanentError as error:
            return TargetLook(problem=str(error), gone=isinstance(error, NotFound))

    async def budget(self, action: Action) -> Budget:
        """The limits of the action; services are counted only if MAX_FLEET_SHARE is set."""
        known = None
        if self.limits.shared.fleet_share < 1 and action.target is not None and self.reader is not None:
            clusters, cluster = self.limits.shared.clusters, action.target.cluster
            listed = await self.reader.services()
            known = sum(clusters.of(key.environment) == cluster for key in listed)
        return Budget(
            per_incident=self.limits.max_actions_per_incident,
            limits=self.limits.shared,
            known_services=known,
            alone=cordons_node(action),
        )

    async def objection(self, key: ServiceKey, intent: Intent, *, under_way: bool = False) -> str | None:
        """Why the cluster forbids the action now, read right before the write.

        The target, the workload of the service or their namespace opts out, a PodDisruptionBudget was
        created or changed since the decision, too many nodes are cordoned, or pods of a node cannot be
        moved. `under_way`: the node is already cordoned for them. An undo that the agent decides is
        allowed, unless another incident needs the state that it would remove.
        """
        needed = await self.needed_by(intent.incident_id, intent.action)
        if self.reader is None or intent.own_undo or needed is not None:
            return needed
        cordoned = too_many_cordoned(intent.action, await self._cordons(intent.action), self.limits.cordons)
        held = cannot_drain(intent.action, await self._load(intent.action, rooms=not under_way))
        if cordoned or held:
            return "; ".join((*cordoned, *held))
        opt_out = await self.reader.opt_out(intent.action, key)
        objection = withheld(opt_out, opt_in=self.limits.require_opt_in)
        if objection is not None:
            return objection
        disruption = await self.reader.disruption(intent.action)
        if disruption is None:
            return None
        return "; ".join(too_many(intent.action, disruption, self.limits.max_replica_share)) or None

    async def full_now(self, intent: Intent) -> str | None:
        """Why the nodes cordoned now leave no room for the action; None if they do.

        Nodes that cannot be counted leave no room; the agent's own undo needs none.
        """
        if intent.own_undo:
            return None
        try:
            found = await self._cordons(intent.action)
        except (TransientError, PermanentError) as error:
            found = NodeCordons(nodes=0, unread=str(error))
        return "; ".join(too_many_cordoned(intent.action, found, self.limits.cordons)) or None

    async def needed_by(self, incident: IncidentId, action: Action) -> str | None:
        """Which other open incident needs the cordon that the action would remove; None if none does."""
        if not frees_node(action):
            return None
        return still_needed(action, incident, await self.store.incidents.all_open())

    async def available(self, key: ServiceKey) -> int | None:
        """The available replicas right before the action: the number an undo must restore."""
        workload = await self._workload(key)
        return None if workload is None else workload.available_replicas

    async def serving(self, key: ServiceKey) -> str:
        """The available replicas as a sentence; empty if unknown."""
        workload = await self._workload(key)
        return "" if workload is None else f"{serving_now(workload)}. "

    async def content(self, key: ServiceKey, action: Action, undone: Snapshot | None) -> Snapshot | None:
        """The content that the action writes: the stored ConfigMap of `content_hash`, else of an undo."""
        content_hash = action.parameters.get("content_hash")
        if content_hash is None or action.target is None:
            return undone
        for kept in await self.store.history.configs(key):
            if kept.name == action.target.name and kept.content_hash == content_hash:
                return Snapshot(ref=action.target, token=content_hash, body={"data": dict(kept.data)})
        raise NotFound(f"{action.target} in version {content_hash} is no longer in the agent's history")

    async def _opt_out(self, key: ServiceKey, action: Action, look: TargetLook) -> OptOut:
        if self.reader is None or look.target is None:
            return OptOut()
        return await self.reader.opt_out(action, key)

    async def _disruption(self, action: Action, look: TargetLook) -> Disruption | None:
        if self.reader is None or look.target is None:
            return None
        return await self.reader.disruption(action)

    async def _cordons(self, action: Action) -> NodeCordons | None:
        if self.reader is None or not cordons_node(action) or action.target is None:
            return None
        return await self.reader.cordons(action.target)

    async def _load(self, action: Action, *, rooms: bool) -> NodeLoad | None:
        if self.reader is None or not drains_node(action) or action.target is None:
            return None
        return await self.reader.load(action.target, rooms=rooms)

    async def _workload(self, key: ServiceKey) -> WorkloadView | None:
        try:
            return None if self.reader is None else await self.reader.workload(key)
        except PermanentError:
            return None

    async def _rehearse_whole(self, record: IncidentRecord, look: TargetLook) -> Rehearsal | None:
        """Rehearse the next action together with the actions that complete it."""
        incident, plan = record.incident, record.incident.plan
        assert plan is not None  # noqa: S101 - the caller decides an action of it
        index = incident.next_action
        rehearsal = await self._rehearse(incident.key, plan.actions[index], look)
        while rehearsal is not None and rehearsal.accepted and not plan.actions[index].then_verify:
            index += 1
            if index >= len(plan.actions):
                break
            completing = plan.actions[index]
            found = await self._rehearse(incident.key, completing, await self.look(completing))
            if found is not None and not found.accepted:
                return Rehearsal(
                    accepted=False,
                    message=f"{completing.name.words}, which completes it, would be refused: {found.message}",
                )
        return rehearsal

    async def _rehearse(self, key: ServiceKey, action: Action, look: TargetLook) -> Rehearsal | None:
        ref = application_of(action)
        if ref is not None and self.applications is not None:
            return await self.applications.rehearse(ref, int(text_of(action, HISTORY_ID)))
        if self.rehearsal is None or look.target is None:
            return None
        return await self.rehearsal.rehearse(action, look.target, await self.content(key, action, None))


def _as_diagnosed(record: IncidentRecord, action: Action, target: TargetState) -> bool:
    """Whether the target is unchanged since the diagnosis or since this plan's previous action."""
    left = [
        i.applied_token
        for i in record.intents
        if i.action.target == action.target and i.applied_token is not None
    ]
    if left:
        return same_ground(action, left[-1], target.token)
    seen = action.diagnosed_token
    return seen is None or same_ground(action, seen, target.token) or target.token.endswith(f"/{seen}")
