"""What moves the objects of the simulated cluster: the deployment controller.

The deployment controller follows the real one where the agent could notice a
difference: a rolling update bounded by maxSurge and maxUnavailable (so that old
pods keep serving while new ones fail), a template that comes back gets the next
revision number, a paused rollout creates nothing, and progress that stops for
`progressDeadlineSeconds` is said to have. `app.sandbox.kubelet` runs the pods.
"""

from __future__ import annotations

from datetime import datetime

from app.errors import Forbidden
from app.sandbox.api import ApiServer, Thing
from app.sandbox.engine import Engine
from app.sandbox.kubelet import CREATE_AGAIN_SECONDS, OWNER_LABEL, Kubelet
from app.sandbox.objects import (
    Deployment,
    Pod,
    ReplicaSet,
    StatefulSet,
    WarningEvent,
    digest,
    template_body,
)
from app.sandbox.operations import FIELD_MANAGER
from app.sandbox.rollouts.steps import NewPod, next_step

SYNC_SECONDS = 0.05
REVISION = "deployment.kubernetes.io/revision"


class DeploymentController:
    """Brings ReplicaSets and pods in line with their Deployment, a step at a time."""

    def __init__(self, engine: Engine, api: ApiServer, kubelet: Kubelet) -> None:
        self._engine = engine
        self._api = api
        self._kubelet = kubelet
        self._queued: set[str] = set()

    def start(self) -> None:
        """Follow the objects from now on."""
        self._api.changed.append(self._notice)

    def _notice(self, thing: Thing) -> None:
        """Queue the Deployment that a changed object belongs to, once."""
        if isinstance(thing, Deployment):
            self._queue(thing.meta.uid)
        elif isinstance(thing, Pod):
            for owner in self._api.list(ReplicaSet, thing.meta.namespace):
                if owner.meta.uid == thing.owner_uid:
                    self._queue(owner.owner_uid)

    def _queue(self, uid: str) -> None:
        if uid not in self._queued:
            self._queued.add(uid)
            self._engine.after(SYNC_SECONDS, lambda: self._sync(uid))

    def _sync(self, uid: str) -> None:
        self._queued.discard(uid)
        deployment = next((d for d in self._api.workloads() if d.meta.uid == uid), None)
        if deployment is None:
            return
        owned = self.replica_sets(deployment)
        new = next((r for r in owned if r.template == deployment.template), None)
        if isinstance(deployment, StatefulSet):
            new = self._newest(deployment, owned, new)
            self._step(deployment, new, self.replica_sets(deployment))
        elif deployment.paused:
            active = [r for r in owned if r.replicas > 0]
            if len(active) == 1:
                self._scale(deployment, active[0], deployment.replicas)
        else:
            new = self._newest(deployment, owned, new)
            self._roll(deployment, new, [r for r in owned if r is not new])
        self._report(deployment, new)

    def replica_sets(self, deployment: Deployment) -> list[ReplicaSet]:
        """The ReplicaSets of a Deployment, newest revision first."""
        owned = [
            r
            for r in self._api.list(ReplicaSet, deployment.meta.namespace)
            if r.owner_uid == deployment.meta.uid
        ]
        return sorted(owned, key=lambda r: r.revision, reverse=True)

    def pods(self, replica_set: ReplicaSet) -> list[Pod]:
        return [
            p for p in self._api.list(Pod, replica_set.meta.namespace) if p.owner_uid == replica_set.meta.uid
        ]

    def _newest(
        self, deployment: Deployment, owned: list[ReplicaSet], found: ReplicaSet | None
    ) -> ReplicaSet:
        """The ReplicaSet of the present template, with the highest revision of all."""
        highest = max((r.revision for r in owned), default=0)
        if found is None:
            suffix = digest(template_body(deployment.template))
            found = self._api.create(
                ReplicaSet(
                    meta=self._api.new_meta(deployment.meta.namespace, f"{deployment.meta.name}-{suffix}"),
                    owner_uid=deployment.meta.uid,
                    template=deployment.template,
                    revision=highest + 1,
                )
            )
            self._progress(deployment)
            retired = [r for r in owned if r.replicas == 0][deployment.revision_history_limit :]
            for old in retired:
                self._api.delete(old)
        elif found.revision < highest:
            found.revision = highest + 1
            by_agent = deployment.meta.changed_by == FIELD_MANAGER  # what it brings back is no release
            found.taken_up_at = None if by_agent else self._engine.now
            self._progress(deployment)
        found.meta.annotations = dict(deployment.meta.annotations)
        deployment.meta.annotations[REVISION] = str(found.revision)
        return found

    def _roll(self, deployment: Deployment, new: ReplicaSet, old: list[ReplicaSet]) -> None:
        wanted = deployment.replicas
        surge, unavailable = deployment.rolling()
        total = new.replicas + sum(r.replicas for r in old)
        if new.replicas > wanted:
            self._scale(deployment, new, wanted)
        elif new.replicas < wanted:
            room = max(0, wanted + surge - total)
            self._scale(deployment, new, min(wanted, new.replicas + room))
        else:
            self._scale(deployment, new, wanted)  # pods that somebody deleted come back
        self._retire(deployment, new, old, least=max(0, wanted - unavailable))

    def _retire(self, deployment: Deployment, new: ReplicaSet, old: list[ReplicaSet], least: int) -> None:
        """Take old pods away: broken ones first, serving ones only while `least` stay available."""
        available_new = self._ready(new)
        total = new.replicas + sum(r.replicas for r in old)
        spare = total - least - (new.replicas - available_new)
        for replica_set in reversed(old):
            broken = replica_set.replicas - self._ready(replica_set)
            taken = max(0, min(broken, spare))
            spare -= taken
            self._scale(deployment, replica_set, replica_set.replicas - taken)
        spare = min(spare, available_new + sum(self._ready(r) for r in old) - least)
        for replica_set in reversed(old):
            taken = max(0, min(replica_set.replicas, spare))
            spare -= taken
            self._scale(deployment, replica_set, replica_set.replicas - taken)

    def _scale(self, deployment: Deployment, replica_set: ReplicaSet, replicas: int) -> None:
        pods = self.pods(replica_set)
        if replica_set.replicas == replicas == len(pods):
            return
        if replica_set.replicas != replicas:
            replica_set.replicas = replicas
            self._api.bump(replica_set)
            self._progress(deployment)
        for pod in sorted(pods, key=_first_to_go)[: max(0, len(pods) - replicas)]:
            self._api.delete(pod)
        deployment.status.replica_failure = None
        for _ in range(replicas - len(pods)):
            name = f"{replica_set.meta.name}-{self._engine.random.getrandbits(20):05x}"
            if not self._make(deployment, replica_set, NewPod(name=name)):
                return
        deployment.status.replica_failure_since = None

    def _make(self, deployment: Deployment, replica_set: ReplicaSet, place: NewPod) -> bool:
        """Make one pod; whether it was admitted."""
        name = place.name if place.node is None else f"{place.name}-{self._engine.random.getrandbits(20):05x}"
        meta = self._api.new_meta(replica_set.meta.namespace, name)
        meta.labels[OWNER_LABEL] = deployment.meta.name
        try:
            self._api.admit_pod(meta.namespace, meta.name)
        except Forbidden as error:
            self._refused(deployment, str(error))
            return False
        pod = Pod(
            meta=meta,
            owner_uid=replica_set.meta.uid,
            template=replica_set.template,
            bound_to=place.node,
            stays=isinstance(deployment, StatefulSet),
        )
        self._kubelet.admit(self._api.create(pod))
        return True

    def _step(self, workload: StatefulSet, new: ReplicaSet, owned: list[ReplicaSet]) -> None:
        """Make and delete the pods of a StatefulSet or DaemonSet that its controller would next."""
        pods = {revision.meta.uid: self.pods(revision) for revision in owned}
        step = next_step(workload, [pod for some in pods.values() for pod in some], new.meta.uid)
        for pod in step.delete:
            self._api.delete(pod)
        workload.status.replica_failure = None
        settled = next((one for one in owned if one.template == workload.settled), new)
        made = [self._make(workload, new if one.updated else settled, one) for one in step.make]
        if all(made):
            workload.status.replica_failure_since = None
        for revision in owned:
            replicas = len(self.pods(revision))
            if revision.replicas != replicas:
                revision.replicas = replicas
                self._api.bump(revision)
                self._progress(workload)
        if new.replicas == workload.replicas == self._ready(new):
            workload.settled = new.template

    def _refused(self, deployment: Deployment, why: str) -> None:
        """A pod could not be made: say so, and try again later."""
        deployment.status.replica_failure = f"FailedCreate: {why}"
        deployment.status.replica_failure_since = deployment.status.replica_failure_since or self._engine.now
        uid, meta = deployment.meta.uid, deployment.meta
        self._kubelet.events.append(
            WarningEvent(
                at=self._engine.now,
                namespace=meta.namespace,
                owner=meta.name,
                reason="FailedCreate",
                message=f"Error creating: {why}",
            )
        )
        self._engine.after(CREATE_AGAIN_SECONDS, lambda: self._queue(uid))

    def _ready(self, replica_set: ReplicaSet) -> int:
        return sum(pod.ready for pod in self.pods(replica_set))

    def _progress(self, deployment: Deployment) -> None:
        """Something moved: the deadline counts from now."""
        deployment.last_progress_at = self._engine.now
        uid = deployment.meta.uid
        self._engine.after(deployment.progress_deadline_seconds + SYNC_SECONDS, lambda: self._queue(uid))

    def _report(self, deployment: Deployment, new: ReplicaSet | None) -> None:
        """Write the status, where it says something new."""
        owned = self.replica_sets(deployment)
        ready = sum(self._ready(r) for r in owned)
        updated = new.replicas if new is not None else 0
        total = sum(r.replicas for r in owned)
        status, before = deployment.status, _status_value(deployment)
        if ready > status.ready or updated > status.updated:
            self._progress(deployment)
        status.observed_generation = deployment.meta.generation
        status.replicas, status.updated = total, updated
        status.ready = status.available = ready
        status.progressing, status.reason = self._progressing(deployment, new)
        if _status_value(deployment) != before:
            self._api.bump(deployment)

    def _progressing(self, deployment: Deployment, new: ReplicaSet | None) -> tuple[bool, str]:
        if deployment.paused:
            return True, "DeploymentPaused"
        status, wanted = deployment.status, deployment.replicas
        if status.reason == "NewReplicaSetAvailable" and status.replicas == status.updated == wanted:
            return True, status.reason  # a rollout that was complete does not fail later
        if new is not None and status.updated == status.replicas == status.available == wanted:
            return True, "NewReplicaSetAvailable"
        since = deployment.last_progress_at or deployment.meta.created_at
        if (self._engine.now - since).total_seconds() >= deployment.progress_deadline_seconds:
            return False, "ProgressDeadlineExceeded"
        return True, "ReplicaSetUpdated"


def _first_to_go(pod: Pod) -> tuple[bool, datetime]:
    """Broken pods first, then the oldest."""
    return pod.ready, pod.meta.created_at


def _status_value(deployment: Deployment) -> tuple[object, ...]:
    """The status of a Deployment as a value, to detect whether it changed."""
    s = deployment.status
    return (
        s.observed_generation,
        s.replicas,
        s.updated,
        s.ready,
        s.available,
        s.progressing,
        s.reason,
        s.replica_failure,
        deployment.meta.annotations.get(REVISION),
    )
