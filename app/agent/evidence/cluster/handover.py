"""The handover: failing pods with their reasons, warnings, other owners, and commands to run. Pure.

Every name in a command comes from the API server, which allows no character that a shell would interpret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from app.agent.batch.runs import BatchView
from app.agent.evidence.cluster.blockers import MissingObject, Refusal, missing_objects, refusal
from app.agent.evidence.cluster.held_up import delete_command, waited_for
from app.agent.evidence.cluster.log_patterns import pattern_facts
from app.agent.evidence.cluster.release_records import pending_words
from app.agent.evidence.cluster.routes import (
    ROUTE_CAUSES,
    change_in_words,
    concerning,
    related,
    route_candidates,
    routes_of,
    standing_faults,
    unchanged_words,
)
from app.agent.evidence.conditions import pod_words, serving_words
from app.agent.evidence.facts import PodFault, current_revision, initialising, pod_fault
from app.agent.evidence.symptoms import incident_onset
from app.agent.guardrails.limits.clusters import in_words
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.models import Cause, Evidence
from app.agent.routes import INGRESS, NETWORK_POLICY, ROUTE_KINDS, SERVICE, RouteChange
from app.agent.workload import ObjectRef, PodView, WorkloadView
from app.durations import span
from app.lists import some_of

_PODS, _WARNINGS, _COMMANDS = 3, 3, 3
"""At most this many of each are listed."""

_SECRETS = 3
_ROUTES, _ROUTES_NAMED = 3, 6
_PLURALS = {SERVICE: "Services", INGRESS: "Ingresses", NETWORK_POLICY: "NetworkPolicies"}
_TRAFFIC = tuple(_PLURALS.values())
_WRITERS = (
    "custom-columns=KIND:.kind,NAME:.metadata.name,"
    "BY:.metadata.managedFields[*].manager,AT:.metadata.managedFields[*].time"
)
"""Who wrote each object and when, without its content."""

_OVERDUE = timedelta(seconds=10)
"""A node confirms the end of a pod within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Each line is a clause without a full stop."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    """The cluster's own messages, newest first."""
    commands: tuple[str, ...]
    """kubectl lines to copy; they only read."""


def handover(evidence: Evidence, cause: Cause) -> Handover | None:
    """The handover of a workload or a batch that the agent sees; None without one."""
    workload = evidence.workload
    if workload is None:
        return None if evidence.batch is None else _of_batch(evidence.batch, evidence)
    failing = [pod for pod in workload.pods if pod_fault(pod, evidence.at) is not None]
    return Handover(
        facts=(
            *_facts(workload),
            *_removed_pods(workload),
            *_routes(evidence, workload, cause, unexplained=_unexplained(failing, cause)),
            *_pod_facts(failing, evidence),
            *_read_at_start(workload, failing, evidence, cause),
            *pattern_facts(evidence.log_patterns),
        ),
        warnings=workload.warnings[:_WARNINGS],
        commands=_placed(workload.target.ref, dict.fromkeys(_commands(workload, failing, evidence, cause))),
    )


def _of_batch(batch: BatchView, evidence: Evidence) -> Handover:
    """The state of its newest run, and the patterns in the logs of the failed run."""
    here = f"kubectl -n {batch.ref.namespace}"
    commands = [f"{here} describe {batch.ref.kind.lower()} {batch.ref.name}"]
    if batch.failed is not None:
        run = batch.failed.name
        logs = f"{here} logs job/{run} --all-containers --tail=50"
        commands = [logs, f"{here} describe job {run}", *commands]
    return Handover(
        facts=(batch.words, *pattern_facts(evidence.log_patterns)),
        warnings=(),
        commands=_placed(batch.ref, dict.fromkeys(commands)),
    )


def lasting_commands(workload: WorkloadView) -> tuple[str, ...]:
    """Lines that name no pod: they work after an action, or its undo, replaced the pods."""
    ref = workload.target.ref
    here = f"kubectl -n {ref.namespace}"
    return _placed(
        ref,
        [
            f"{here} describe {ref.kind.lower()} {ref.name}",
            f"{here} get pods -o wide",
            f"{here} get events --sort-by=.lastTimestamp",
        ],
    )


def _placed(ref: ObjectRef, commands: Iterable[str]) -> tuple[str, ...]:
    """With the cluster that a line is meant for, where the cluster of the object has a name."""
    cluster = ref.cluster
    where = f" # {in_words(cluster)}" if cluster else ""
    return tuple(f"{line}{where}" for line in islice(commands, _COMMANDS))


def _facts(workload: WorkloadView) -> list[str]:
    cluster = workload.target.ref.cluster
    facts = [serving_words(workload)]
    if cluster:
        facts.append(f"it runs in {in_words(cluster)}: kubectl needs the context of that cluster")
    facts += _facts_of_its_kind(workload)
    if workload.served_by is not None:
        facts.append(f"{workload.served_by} runs its pods, and its 0 replicas are on purpose")
    elif workload.managed_by is not None:
        facts.append(f"{workload.managed_by} manages it and reverts changes made in the cluster")
    if workload.released_by is not None:
        facts.append(f"it was released by {workload.released_by}, which does not notice a rollback")
    pending = pending_words(workload, workload.observed_at)
    if pending is not None:
        facts.append(pending)
    for scaler in workload.autoscalers:
        if scaler.sets_replicas:
            at = " and is at its maximum" if scaler.at_maximum else ""
            facts.append(f"{scaler} sets its replicas between {scaler.minimum} and {scaler.maximum}{at}")
        else:
            facts.append(f"{scaler} sets the resources of its pods")
    return facts


def _facts_of_its_kind(workload: WorkloadView) -> list[str]:
    """Facts for a person who changes the workload by hand."""
    ref, facts = workload.target.ref, []
    if ref.kind == ROLLOUT:
        facts.append(
            "the controller of Argo Rollouts runs its pods: "
            f"kubectl argo rollouts -n {ref.namespace} abort {ref.name} goes back to the stable release"
        )
    if workload.replaced_by_hand:
        facts.append("its pods take a new template only when someone deletes them")
    if workload.partition:
        facts.append(f"pods with an ordinal below {workload.partition} keep their template (partition)")
    waiting = ", ".join(pod.name for pod in waited_for(workload))
    if waiting:
        facts.append(
            f"its controller changes no pod while {waiting} is not ready: "
            f"after a change of the template someone must delete that pod ({delete_command(workload)})"
        )
    return facts


def _removed_pods(workload: WorkloadView) -> list[str]:
    """Pods that a node evicted, and pods that are being deleted for longer than they were granted."""
    facts = []
    evicted = [pod for pod in workload.pods if pod.evicted is not None]
    if evicted:
        newest = evicted[0]
        were = "pod was" if len(evicted) == 1 else "pods were"
        facts.append(f"{len(evicted)} {were} evicted, the last from node {newest.node}: {newest.evicted}")
    at = workload.observed_at
    late = {pod.name: at - pod.ends_by for pod in workload.pods if pod.ends_by is not None}
    late = {name: since for name, since in late.items() if since >= _OVERDUE}
    if late:
        facts.append(
            f"{', '.join(sorted(late)[:_PODS])} should have ended {span(max(late.values()))} ago: "
            "the node does not end the containers, or a finalizer holds the pod"
        )
    return facts


def _unexplained(failing: list[PodView], cause: Cause) -> bool:
    """Whether neither a rule nor a pod shows the fault: the handover then lists the objects that the agent
    does not read."""
    return cause is Cause.UNKNOWN and not failing


def _routes(evidence: Evidence, workload: WorkloadView, cause: Cause, *, unexplained: bool) -> list[str]:
    """What carries the requests: what changed, and where nothing explains the symptom also what did not."""
    if not unexplained and cause not in ROUTE_CAUSES:
        return []
    faults = standing_faults(evidence)
    facts = [f"{fault} {fault.words}" for fault in faults[:_ROUTES]]
    facts += [change_in_words(one, evidence) for one in concerning(evidence, related(evidence))[:_ROUTES]]
    if cause in ROUTE_CAUSES:
        return facts
    routes = workload.routes
    if routes is not None:
        same = unchanged_words(routes, incident_onset(evidence), _ROUTES_NAMED)
        facts += [same] if same is not None else []
        if not routes.objects and not faults and len(routes.unread) < len(ROUTE_KINDS):
            facts.append("no Service, Ingress or NetworkPolicy that the agent may read concerns its pods")
    unchecked = _unchecked(workload)
    return [*facts, unchecked] if unchecked is not None else facts


def _unchecked(workload: WorkloadView) -> str | None:
    """Objects that may have changed and that the agent does not read: Secrets, or routes without the right
    to them."""
    secrets, routes = _secrets(workload), workload.routes
    kinds = _TRAFFIC if routes is None else tuple(_PLURALS[kind] for kind in routes.unread)
    content = f"the content of Secret {some_of(secrets, _SECRETS)}" if secrets else ""
    changes = f"changes of {', '.join(kinds)}" if kinds else ""
    listed = ", and ".join(one for one in (changes, content) if one)
    return f"not checked, because the agent does not read them: {listed}" if listed else None


def _secrets(workload: WorkloadView) -> list[str]:
    """The Secrets without which no pod of the current template starts."""
    current = current_revision(workload)
    named = sorted((current.references if current is not None else None) or ())
    return [name for kind, _, name in (one.partition(" ") for one in named) if kind == "Secret"]


def _read_at_start(
    workload: WorkloadView, failing: list[PodView], evidence: Evidence, cause: Cause
) -> list[str]:
    """The Secrets whose content may have changed since the healthy pods of the same template started."""
    secrets = _secrets(workload)
    if cause is not Cause.UNKNOWN or not secrets or not _younger_than_twins(workload, failing, evidence):
        return []
    return [
        f"older pods with the same template are healthy, and the agent does not read Secret "
        f"{some_of(secrets, _SECRETS)}: its content may have changed since they started"
    ]


def _younger_than_twins(workload: WorkloadView, failing: list[PodView], evidence: Evidence) -> bool:
    """Whether every failing pod crashes, and started after a healthy pod of the same template."""
    started = {pod.template_hash: pod.created_at for pod in workload.pods if pod.ready}
    return bool(failing) and all(
        pod_fault(pod, evidence.at) is PodFault.CRASH
        and pod.template_hash in started
        and started[pod.template_hash] < pod.created_at
        for pod in failing
    )


def _pod_facts(failing: list[PodView], evidence: Evidence) -> list[str]:
    """Each reason once, with the first pod that shows it."""
    by_words: dict[str, str] = {}
    for pod in failing:
        words = pod_words(pod, evidence.at) or f"is one of those that {pod_fault(pod, evidence.at)}"
        by_words.setdefault(words, pod.name)
    return [f"pod {name}: {words}" for words, name in list(by_words.items())[:_PODS]]


def _commands(workload: WorkloadView, failing: list[PodView], evidence: Evidence, cause: Cause) -> list[str]:
    """The most telling first."""
    ref = workload.target.ref
    here, kind = f"kubectl -n {ref.namespace}", ref.kind.lower()
    found: list[str] = []
    if cause in ROUTE_CAUSES or (_unexplained(failing, cause) and standing_faults(evidence)):
        found += _route_commands(here, evidence)
    if cause is Cause.SCALED_TO_ZERO:
        found.append(f"{here} get {kind} {ref.name} -o yaml --show-managed-fields")
    if workload.replica_failure is not None:
        quota = refusal(workload.replica_failure) is Refusal.QUOTA
        found.append(
            f"{here} describe quota,limitrange" if quota else f"{here} get events --sort-by=.lastTimestamp"
        )
    secrets = _secrets(workload)
    written = [f"{here} get secrets {' '.join(secrets)} -o '{_WRITERS}'"] if secrets else []
    if _read_at_start(workload, failing, evidence, cause):
        found += written
    for pod in failing:
        found += _pod_commands(here, pod, evidence)
    if _unexplained(failing, cause):
        found.append(f"{here} get services,ingresses,networkpolicies -o '{_WRITERS}'")
        found += written
    found.append(f"{here} describe {kind} {ref.name}")
    return found


def _route_commands(here: str, evidence: Evidence) -> list[str]:
    """The objects that were changed or are wrong; a deleted one is listed with the others of its kind."""
    there = {str(one) for one in routes_of(evidence).objects}
    changed = [(one.kind, one.name, one) for one in route_candidates(evidence)]
    faults = [(one.kind, one.name) for one in standing_faults(evidence)]
    named = dict.fromkeys([(kind, name) for kind, name, one in changed if not _deleted(one)] + faults)
    found = [f"{here} get {kind.lower()} {name} -o yaml --show-managed-fields" for kind, name in named]
    gone = dict.fromkeys(kind for kind, _, one in changed if _deleted(one) and str(one) not in there)
    return found + [f"{here} get {kind.lower()} -o '{_WRITERS}'" for kind in gone]


def _deleted(change: RouteChange) -> bool:
    return change.difference[:1] == ("deleted",)


def _pod_commands(here: str, pod: PodView, evidence: Evidence) -> list[str]:
    container = f" -c {pod.failing.name}" if pod.failing is not None else ""
    match pod_fault(pod, evidence.at):
        case PodFault.LOST:
            return [f"kubectl describe node {pod.node}"] if pod.node is not None else ["kubectl get nodes"]
        case PodFault.CRASH | PodFault.OUT_OF_MEMORY | PodFault.STOPPED:
            return [
                f"{here} logs {pod.name}{container} --previous --tail=50",
                f"{here} describe pod {pod.name}",
            ]
        case PodFault.CONFIGURATION:
            missing = [_get(here, one) for one in missing_objects(pod) if one.name]
            return [*missing, f"{here} describe pod {pod.name}"]
        case PodFault.STORAGE:
            return [f"{here} describe pod {pod.name}", f"{here} get persistentvolumeclaims"]
        case PodFault.UNSCHEDULED:
            return [f"{here} describe pod {pod.name}", "kubectl describe nodes"]
        case PodFault.NOT_READY if initialising(pod, evidence.at) is not None:
            return [f"{here} logs {pod.name}{container} --tail=50", f"{here} describe pod {pod.name}"]
        case _:
            return [f"{here} describe pod {pod.name}"]


def _get(here: str, missing: MissingObject) -> str:
    return f"{here} get {missing.kind.lower()} {missing.name}"
