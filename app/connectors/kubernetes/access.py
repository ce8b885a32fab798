"""The check of the cluster: reachable, its services, and the permissions of the agent's identity.

One `SelfSubjectAccessReview` per right: the only way to know without trying.
Called by `heal doctor` alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx2
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

from app.agent.actions import ACTIONS
from app.agent.actions.spec import CONFIG_MAP
from app.agent.batch.runs import JOB
from app.agent.evidence.format import counted
from app.agent.guardrails.limits.clusters import in_words
from app.agent.guardrails.workload_kinds import AUTOSCALER, IN_MONITORING, NODE, ROLLOUT, WORKLOAD_KINDS
from app.agent.ids import ServiceKey
from app.agent.models import ActionName
from app.agent.ports.cluster import UnwatchedWorkload
from app.clock import Clock
from app.config import Settings
from app.connectors.clusters.connect import connect_one
from app.connectors.findings import DoctorRun, Finding, fail, ok, warn
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.connection import Kind, group, plural
from app.connectors.kubernetes.controllers import AUTOSCALERS, STAND_INS
from app.connectors.kubernetes.routes.view import ROUTES
from app.errors import AgentError, ConfigurationError, PermanentError, TransientError
from app.terms.clusters import cluster_names, of_cluster

_MOST_SHOWN = 10
_MOST_SKEW = timedelta(seconds=5)
_TRIES_PODS = ("create", "pods")
"""Optional: without it a dry run tests the workload only."""
_OTHER_WORKLOADS = ("statefulsets", "daemonsets")
"""Optional: without them the agent looks after Deployments only."""
_AUTOSCALERS = "horizontalpodautoscalers"
"""Optional: without it the agent does not know what else sets the replicas."""
_ROUTES = frozenset(plural(kind) for kind in ROUTES)
"""Optional: without them an incident by a selector, a port or a network policy has no known cause."""
_NODES = "nodes"
"""Of the whole cluster, whatever namespaces are watched."""
_BATCHES = ("jobs", "cronjobs")
_LOGS = "pods/log"
_FLUX = (
    *((verb, "kustomize.toolkit.fluxcd.io", "kustomizations") for verb in ("get", "list")),
    *((verb, "source.toolkit.fluxcd.io", "gitrepositories") for verb in ("get", "list", "patch")),
    *((verb, "helm.toolkit.fluxcd.io", "helmreleases") for verb in ("get", "list")),
)
"""In all namespaces: a source may be shared with a Kustomization of any."""
_OF_OTHERS = (*AUTOSCALERS, *STAND_INS)
"""What other controllers keep."""
_LISTED_ELSE = frozenset(
    {"events", "controllerrevisions", "poddisruptionbudgets", *(plural(kind) for kind in _OF_OTHERS)}
)
"""Kinds that are listed again and again where they may not be watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One right: a verb on a resource in a namespace, or in all of them."""

    verb: str
    group: str
    resource: str
    namespace: str

    def __str__(self) -> str:
        where = f"in {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.verb} {self.resource} {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerAnswer:
    """What the API server said, and how far its clock is ahead of this machine's, to a second."""

    rights: tuple[tuple[Access, bool], ...]
    skew: timedelta | None


async def clock_and_rights(settings: Settings, wanted: Sequence[Access], clock: Clock) -> ApiServerAnswer:
    """Ask for each right; raises like every port."""
    config = load_config(settings)
    if config is None:
        raise ConfigurationError("no cluster is configured")
    skew: timedelta | None = None
    rights: list[tuple[Access, bool]] = []
    try:
        async with AsyncClient(config=config) as client:
            for access in wanted:
                review = await client.create(_review(access))
                rights.append((access, bool(review.status and review.status.allowed)))
                skew = _skew(review, clock) or skew
    except ApiError as error:
        raise PermanentError(f"the API server refused: {error}") from error
    except (httpx2.HTTPError, ConfigError, OSError, ValueError, KeyError) as error:
        # The last two: lightkube trips over answers that are not Kubernetes' own.
        raise TransientError(f"the API server does not answer: {type(error).__name__}") from error
    return ApiServerAnswer(rights=tuple(rights), skew=skew)


def _review(access: Access) -> SelfSubjectAccessReview:
    return SelfSubjectAccessReview(
        spec=SelfSubjectAccessReviewSpec(
            resourceAttributes=ResourceAttributes(
                verb=access.verb,
                group=access.group,
                resource=access.resource.partition("/")[0],
                subresource=access.resource.partition("/")[2] or None,
                namespace=access.namespace or None,
            )
        )
    )


def _skew(review: SelfSubjectAccessReview, clock: Clock) -> timedelta | None:
    """The server stamps what it is sent; the stamp has whole seconds."""
    fields = (review.metadata.managedFields if review.metadata else None) or ()
    stamps = [field.time for field in fields if field.time is not None]
    return max(stamps) - clock.now() if stamps else None


# ------------------------------------------------------------------ the check of `heal doctor`


async def check(run: DoctorRun) -> AsyncIterator[Finding]:
    """Whether each cluster is reachable, and grants the permissions of the enabled actions."""
    found: list[ServiceKey] = []
    for name in cluster_names(run.settings):
        one = replace(run, services=None)
        async for finding in _check(one, name):
            yield replace(finding, check=f"{finding.check}, {in_words(name)}") if name else finding
        if one.services is not None:
            found += one.services
            run.services = tuple(found)


async def _check(run: DoctorRun, name: str) -> AsyncIterator[Finding]:
    """One cluster, by the settings of it alone."""
    settings, clock = asked_of(run.settings, name), run.clock
    try:
        cluster = connect_one(run.settings, name, clock)
    except ConfigurationError as error:
        yield fail("cluster", str(error), "correct the setting it names")
        return
    if cluster is None:
        yield warn(
            "cluster",
            "no cluster connected: the agent diagnoses incidents from posted signals, and cannot act",
            "set KUBECONFIG, or KUBE_IN_CLUSTER=true inside a cluster",
        )
        return
    try:
        run.services = await cluster.reader.services()
        yield _mapped(len(run.services))
        for finding in _unwatched(await cluster.reader.unwatched()):
            yield finding
        for found in await _rights(settings, clock):
            yield found
    except AgentError as error:
        yield fail(
            "cluster",
            str(error),
            f"check kubeconfig and context of CLUSTERS.{name} and the list permission of the agent"
            if name
            else "check KUBECONFIG, KUBE_CONTEXT and the list permission of the agent",
        )
    finally:
        await cluster.close()


def asked_of(settings: Settings, name: str) -> Settings:
    """The settings that say what rights a cluster must grant; Flux is that of the one without a name."""
    found = of_cluster(settings, name)
    return found.model_copy(update={"flux_enabled": False}) if name else found


def _mapped(services: int) -> Finding:
    if not services:
        return warn(
            "cluster",
            "reachable, but no workload maps to a service",
            "label workloads with app.kubernetes.io/name, and check ENVIRONMENT_NAMESPACES",
        )
    return ok("cluster", f"reachable; {counted(services, 'service')}")


def _unwatched(workloads: Sequence[UnwatchedWorkload]) -> Iterator[Finding]:
    """What runs in the watched namespaces and is no service."""
    if workloads:
        yield warn(
            "workloads",
            f"{counted(len(workloads), 'workload')} not watched: "
            + "; ".join(str(one) for one in workloads[:_MOST_SHOWN]),
            "name each in SERVICE_WORKLOADS, or give it a separate label or annotation",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _OptionalRights:
    """Rights without which the agent does less."""

    check: str
    covers: Callable[[Access], bool]
    lost: str
    """What is lost, before the rights that are missing."""
    fix: str = "grant the role of docs/kubernetes.md"

    def without(self, denied: Sequence[Access]) -> str:
        return f"{self.lost}: {', '.join(str(access) for access in denied)} is forbidden"


_OPTIONAL = (
    _OptionalRights(
        check="watching",
        covers=lambda access: access.verb == "watch" and access.resource in _LISTED_ELSE,
        lost="listed for each look instead",
    ),
    _OptionalRights(
        check="other workloads",
        covers=lambda access: access.resource in (*_OTHER_WORKLOADS, "controllerrevisions"),
        lost="StatefulSets and DaemonSets are not looked after as Deployments are",
    ),
    _OptionalRights(
        check="autoscalers",
        covers=lambda access: access.resource == _AUTOSCALERS,
        lost="not read, so `scale` may be overridden",
    ),
    _OptionalRights(
        check="routes",
        covers=lambda access: access.resource in _ROUTES,
        lost="their changes are not examined as causes",
    ),
    _OptionalRights(
        check="logs",
        covers=lambda access: access.resource == _LOGS,
        lost="not read as evidence, although LOG_EVIDENCE is set",
    ),
    _OptionalRights(
        check="failed Jobs",
        covers=lambda access: access.resource in _BATCHES and access.verb == "list",
        lost="not watched, although WATCH_JOBS is set",
    ),
    _OptionalRights(
        check="Helm releases",
        covers=lambda access: access.resource == "secrets",
        lost="their records are not read, although HELM_RELEASES is set",
    ),
    _OptionalRights(
        check="new pods",
        covers=lambda access: (access.verb, access.resource) == _TRIES_PODS,
        lost="dry runs do not test new pods",
        fix="allow the agent to create pods in a dry run, with the policy of docs/kubernetes.md",
    ),
)

_ROLLOUTS = _OptionalRights(
    check="Rollouts",
    covers=lambda access: (access.verb, access.resource) == ("get", plural(Kind.ROLLOUT)),
    lost="not read for an incident, so a service that a Rollout runs has no evidence of its workload",
)
"""Where they are listed, and no enabled action requires more."""


async def _rights(settings: Settings, clock: Clock) -> list[Finding]:
    """Check each permission with the API server."""
    needed, others = needed_rights(settings), supplementary_rights(_namespaces(settings))
    try:
        answer = await clock_and_rights(settings, (*needed, *others), clock)
    except AgentError as error:
        return [
            warn(
                "rights", f"cannot be checked: {error}", "allow the agent to create selfsubjectaccessreviews"
            )
        ]
    found = []
    granted = {access for access, allowed in answer.rights if allowed}
    listed = [one for one in others if one.verb != "list" and replace(one, verb="list") in granted]
    missing = [access for access in dict.fromkeys((*needed, *listed)) if access not in granted]
    for optional in (*_OPTIONAL, *(() if ROLLOUT in _written(settings) else (_ROLLOUTS,))):
        denied = [access for access in missing if optional.covers(access)]
        missing = [access for access in missing if access not in denied]
        if denied:
            found.append(warn(optional.check, optional.without(denied), optional.fix))
    if missing:
        reading = any(access.verb != "patch" for access in missing)
        found.append(
            fail(
                "rights",
                "forbidden: " + ", ".join(str(access) for access in missing),
                "the agent cannot read required objects; add these verbs to its Role"
                if reading
                else "add these verbs to its Role (a dry run requires them too), or remove the actions that "
                "require them from ENABLED_ACTIONS",
            )
        )
    elif not found:
        found.append(ok("rights", f"all {len(needed)} permissions of the enabled actions are granted"))
    found.append(_clock(answer.skew))
    return found


def needed_rights(settings: Settings) -> tuple[Access, ...]:
    """The exact permissions for reading and for each enabled action, dry run or not."""
    needed = [
        *((verb, "apps", "deployments") for verb in ("get", "list", "watch")),
        *((verb, "apps", "replicasets") for verb in ("list", "watch")),
        *((verb, "apps", kind) for kind in _OTHER_WORKLOADS for verb in ("get", "list", "watch")),
        *((verb, "apps", "controllerrevisions") for verb in ("list", "watch")),
        *((verb, "", "pods") for verb in ("list", "watch")),
        *((verb, "", "configmaps") for verb in ("get", "list", "watch")),
        *((verb, "", "events") for verb in ("list", "watch")),
        *((verb, "autoscaling", _AUTOSCALERS) for verb in ("list", "watch")),
        *((verb, group(kind), plural(kind)) for kind in ROUTES for verb in ("list", "watch")),
    ]
    if settings.log_evidence:
        needed.append(("get", "", _LOGS))
    if settings.helm_releases:
        needed.append(("list", "", "secrets"))
    if settings.watch_jobs:
        needed += [("list", "batch", kind) for kind in _BATCHES]
    written = _written(settings)
    if written:
        needed += [(verb, "policy", "poddisruptionbudgets") for verb in ("list", "watch")]
        needed.append(("get", "", "namespaces"))
    if written & ({*WORKLOAD_KINDS} - {ROLLOUT}):
        needed += [("patch", "apps", kind) for kind in ("deployments", *_OTHER_WORKLOADS)]
        needed.append((_TRIES_PODS[0], "", _TRIES_PODS[1]))
    if CONFIG_MAP in written:
        needed.append(("patch", "", "configmaps"))
    if any(ACTIONS[name].removes for name in settings.enabled_actions):
        needed += [(verb, "", "pods") for verb in ("get", "delete")]
    if JOB in written:
        needed += [(verb, "batch", "jobs") for verb in ("get", "list", "create")]
        needed += [(verb, "batch", "cronjobs") for verb in ("get", "list")]
    if AUTOSCALER in written:
        needed += [(verb, "autoscaling", _AUTOSCALERS) for verb in ("get", "patch")]
    if ROLLOUT in written:
        needed.append(("get", "argoproj.io", "rollouts"))
        needed += [("patch", "argoproj.io", kind) for kind in ("rollouts", "rollouts/status")]
    nodes = [(verb, "", _NODES) for verb in ("get", "list", "patch")] if NODE in written else []
    if ActionName.DRAIN_NODE in settings.enabled_actions:
        # The pods of a node are of any namespace.
        nodes += [("list", "", "pods"), ("create", "", "pods/eviction"), ("get", "", "namespaces")]
    flux = _FLUX if settings.flux_enabled else ()
    return tuple(
        Access(verb=verb, group=group, resource=resource, namespace=namespace)
        for rights, places in ((needed, _namespaces(settings)), ((*nodes, *flux), ("",)))
        for namespace in places
        for verb, group, resource in rights
    )


def _written(settings: Settings) -> set[str]:
    """The kinds of objects that the enabled actions change in a cluster."""
    return {kind for name in settings.enabled_actions for kind in ACTIONS[name].kinds - IN_MONITORING}


def supplementary_rights(namespaces: Sequence[str] = ("",)) -> tuple[Access, ...]:
    """Reading what other controllers keep: a cluster without them loses nothing."""
    found = [(verb, kind) for kind in _OF_OTHERS for verb in ("list", "watch")]
    found.append(("get", Kind.ROLLOUT))  # the workload of a service, read by name for each incident
    return tuple(
        Access(verb=verb, group=group(kind), resource=plural(kind), namespace=namespace)
        for namespace in namespaces
        for verb, kind in found
    )


def _namespaces(settings: Settings) -> Sequence[str]:
    """The namespaces that the agent reads; an empty name for all of them."""
    if not settings.environment_namespaces:
        return ("",)
    workloads = (place.partition("/")[0] for place in settings.service_workloads.values())
    return sorted({*settings.environment_namespaces.values(), *workloads})


def _clock(skew: timedelta | None) -> Finding:
    check = "clock of the API server"
    if skew is None:
        return warn(check, "unknown: no response with a time", "synchronize both machines with NTP")
    seconds = skew.total_seconds()
    if abs(skew) > _MOST_SKEW:
        return fail(
            check,
            f"differs by {seconds:+.0f} s from this machine",
            "synchronize both with NTP: staleness and soak depend on the clock",
        )
    return ok(check, f"within {abs(seconds):.0f} s of this machine")
