"""Maps the labels of an alert to its subject: service and place. Pure.

Label names come in dialects: dots, slashes and dashes read as underscores, so that
`service.name` of OpenTelemetry and `service_name` are one. A metric about
something else than the target it was scraped from carries the target's labels
beside its own, and those are set aside: everything that `exported_namespace`,
`exported_pod` or `exported_container` contradicts, names of exporters, and a pod
that does not belong to the object that another label names.

The place is namespace, environment and cluster together. A namespace stands for
itself or for the environment that `ENVIRONMENT_NAMESPACES` gives it; a label for
the environment that says something else becomes part of the name, as in
`prod--checkout`, unless `ALERT_HOME_LABELS` says that it means the connected
cluster. The label for the cluster goes with the alert: intake never lets alerts of
two clusters join one incident. Of the clusters of CLUSTERS `which_cluster` picks one
first, and the rest is mapped as if that were the only one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from app.agent.guardrails.limits.clusters import UNNAMED, in_words
from app.agent.guardrails.workload_kinds import DEPLOYMENT, POD, WORKLOAD_KINDS
from app.agent.ids import ServiceKey
from app.agent.ports.cluster import PodOwner
from app.agent.workload import ObjectRef
from app.config import Settings
from app.connectors.alerts.label_names import KINDS, canonical_labels, spelled
from app.connectors.alerts.label_names import canonical_name as canonical_name
from app.connectors.alerts.pod_names import possible_owners, read_pod_name
from app.connectors.alerts.which_cluster import Unmapped as Unmapped
from app.connectors.alerts.which_cluster import cluster_meant
from app.connectors.text import shorten
from app.terms.clusters import clusters_of, of_cluster

SERVICE_LABELS = (
    "service",
    "service_name",
    "app_kubernetes_io_name",
    "app",
    "deployment",
    "pod",
    "job",
)
"""In their order, by the first of their names; `_DIALECTS` has the others."""
CLUSTER_LABELS = ("cluster", "cluster_name", "k8s_cluster", "k8s_cluster_name")
ENVIRONMENT_LABELS = ("environment", "env", "deployment_environment_name", "deployment_environment")

_NAMESPACE = "namespace"
_WORKLOADS: Mapping[str, str] = {kind.lower(): kind for kind in WORKLOAD_KINDS}
"""Labels that name a workload of a service, such as `deployment` and `statefulset`."""
_ACTS_ON = f"the agent watches workloads that serve: {', '.join(WORKLOAD_KINDS)}"
_OF_TARGET = ("namespace", "service", "app_kubernetes_io_name", "app", "pod", "container", "job")
"""What a scrape adds about its target."""
_SAYS_OF_ANOTHER = ("exported_namespace", "exported_pod", "exported_container")
"""A target has these labels of its own, so that a metric with others is about something else."""
_MESH = {
    "namespace": ("destination_workload_namespace", "destination_service_namespace"),
    "service": ("destination_service_name", "destination_workload"),
}
"""A service mesh measures a request at either end; its subject is the destination."""

_EXPORTERS = re.compile(
    r"(?:.*[-_/])?(?:exporter|kube[-_]state[-_]metrics|ksm|cadvisor|kubelet|prometheus-operator|"
    r"blackbox(?:[-_](?:https?|tcp|udp|icmp|dns|grpc|ssh|ssl|tls|ping|probes?)(?:[-_].*)?)?|"
    r"telegraf|grafana-(?:agent|alloy)|node-problem-detector|"
    r"pushgateway|metrics-server|metrics-apiserver|otel-collector|opentelemetry-collector|otelcol)(?:-[0-9]+)?"
    r"|kubernetes-(?:pods|nodes|services|service-endpoints|ingresses|cadvisor|apiservers)(?:-slow)?"
)
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_ELSEWHERE = "--"
"""Between the parts of a place that the connected cluster does not know by that name."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PodRef:
    """A pod whose owner says what an alert is about."""

    namespace: str
    name: str
    cluster: str = ""
    """One of CLUSTERS; empty for the cluster without a name."""

    @property
    def ref(self) -> ObjectRef:
        """The pod as an object of its cluster."""
        return ObjectRef(kind=POD, namespace=self.namespace, name=self.name, cluster=self.cluster)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Owners = Mapping[PodRef, PodOwner | None]
"""What the cluster answered: None for a pod that is not there, no entry where it could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    environment: str
    namespace: str | None
    home: bool
    """As far as the labels show, of the connected cluster."""

    def object(self, kind: str, name: str) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{kind} {where}{shorten(name, 100)}"


def service_of(labels: Mapping[str, str], settings: Settings, owners: Owners | None) -> ServiceKey:
    """The service that an alert with these labels is about; raises `Unmapped`.

    `owners` is what the cluster answered about `pod_to_ask`; None without a cluster.
    """
    key = _mapped(labels, settings, owners)
    if settings.clusters:
        meant, has = _in_cluster(labels, settings)[0], clusters_of(settings).of(key.environment)
        if meant != has:
            raise Unmapped(
                f"its labels mean {in_words(meant)}, and environment {key.environment} is none of it; "
                "name it in environment_namespaces of that cluster"
            )
    return key


def _mapped(labels: Mapping[str, str], settings: Settings, owners: Owners | None) -> ServiceKey:
    cluster, settings = _in_cluster(labels, settings)
    subject, reporters = _subject(labels)
    place = _place(labels, subject, settings)
    pod = _pod_in_question(subject, place, cluster)
    owner = (owners or {}).get(pod) if pod is not None else None
    configured = _configured(subject, place, owner, settings)
    if configured is not None:
        return configured
    name = _named(subject)
    if name is not None:
        return ServiceKey(environment=place.environment, service=_dns_label(*name))
    _refuse_other_kinds(subject, place)
    if subject.get("pod"):
        return _service_of_pod(subject["pod"], pod, place, owner, owners)
    job = subject.get("job", "").rpartition("/")[2]
    if job:
        return ServiceKey(environment=place.environment, service=_dns_label(job, "job"))
    raise Unmapped(_nothing_named(reporters))


def cluster_of(labels: Mapping[str, str], settings: Settings) -> str:
    """The cluster that the labels name; empty where they name none, or ALERT_HOME_LABELS settles it."""
    with suppress(Unmapped):
        _, settings = _in_cluster(labels, settings)
    found = _first(canonical_labels(labels), CLUSTER_LABELS, but=_home(settings))
    return shorten(found[0], 100) if found is not None else ""


def pod_to_ask(labels: Mapping[str, str], settings: Settings) -> PodRef | None:
    """The pod whose owner names the service, where no other label does."""
    try:
        cluster, settings = _in_cluster(labels, settings)
        subject, _ = _subject(labels)
        place = _place(labels, subject, settings)
    except Unmapped:
        return None
    if _named(subject) is not None or _other_kind(subject) is not None:
        return None
    return _pod_in_question(subject, place, cluster)


# ------------------------------------------------------------------ the subject


def _subject(labels: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The labels that speak of the subject, by their canonical names; and the names of what reported it."""
    given = canonical_labels(labels)
    about_another = any(name in given for name in _SAYS_OF_ANOTHER)
    found = {name: value for name, value in given.items() if not (about_another and name in _OF_TARGET)}
    reporters = [given[name] for name in _OF_TARGET if about_another and name in given and name != _NAMESPACE]
    for name, value in given.items():
        if name.startswith("exported_"):
            found[name.removeprefix("exported_")] = value
    for name, sources in _MESH.items():
        label = next((given[source] for source in sources if source in given), "unknown")
        if label != "unknown":
            found = {k: v for k, v in found.items() if k not in _OF_TARGET or k in _MESH}
            found[name] = label
    _add_workload(found)
    dropped = _of_reporter(found)
    if dropped and "job" not in dropped and "job" in found and "exported_job" not in given:
        dropped.append("job")  # the target's other labels name an exporter: so does its job
    reporters += [found.pop(name) for name in dropped]
    return found, tuple(dict.fromkeys(reporters))


def _add_workload(found: dict[str, str]) -> None:
    """Rules that join pods with their owners say `workload` and `workload_type`, or owner kind and name."""
    for kind_label, name_label in (
        ("workload_type", "workload"),
        ("owner_kind", "owner_name"),
        ("created_by_kind", "created_by_name"),
    ):
        kind, name = found.get(kind_label, "").lower(), found.get(name_label)
        label = "job_name" if kind == "job" else kind
        if name is not None and (label in _WORKLOADS or label in KINDS):
            found.setdefault(label, name)


def _of_reporter(found: Mapping[str, str]) -> list[str]:
    """Labels that name what reported the metric instead of what it is about."""
    pod = found.get("pod")
    objects = [found[name] for name in (*_WORKLOADS, *KINDS) if name in found]
    foreign = pod is not None and (
        any(is_exporter(owner) for owner in possible_owners(pod))
        or (bool(objects) and not any(pod.startswith(name) for name in objects))
    )
    names = possible_owners(pod) if foreign and pod is not None else ()
    return [
        name
        for name in (*_OF_TARGET, "service_name", *_WORKLOADS)
        if name in found
        and name != _NAMESPACE
        and (is_exporter(found[name]) or found[name] in names or (foreign and name in ("pod", "container")))
    ]


def is_exporter(name: str) -> bool:
    """Whether a name is that of something which reports about others."""
    return _EXPORTERS.fullmatch(name) is not None


def _named(subject: Mapping[str, str]) -> tuple[str, str] | None:
    """The first label that names a service outright, as (value, label)."""
    outright = ("service", "service_name") if _other_kind(subject) is not None else SERVICE_LABELS[:5]
    return next(((subject[name], name) for name in (*outright, *_WORKLOADS) if name in subject), None)


def _nothing_named(reporters: Iterable[str]) -> str:
    who = ", ".join(shorten(name, 80) for name in reporters)
    if who:
        return (
            f"no label names the service: {who} reports the metric but is not its subject; "
            "add a label deployment or exported_service to the rule of the alert"
        )
    return f"no label names the service; add one of {', '.join(SERVICE_LABELS)} to the alert"


# ------------------------------------------------------------------ workloads of other kinds


def _other_kind(subject: Mapping[str, str]) -> str | None:
    if any(name in subject for name in _WORKLOADS):
        return None
    return next((name for name in KINDS if name in subject), None)


def _refuse_other_kinds(subject: Mapping[str, str], place: _Place) -> None:
    label = _other_kind(subject)
    if label is not None:
        about = place.object(KINDS[label], subject[label])
        raise Unmapped(f"it is about the {about}, which names no service; {_ACTS_ON}")


def _pod_in_question(subject: Mapping[str, str], place: _Place, cluster: str) -> PodRef | None:
    pod = subject.get("pod")
    if pod is None or place.namespace is None or not place.home or len(pod) > 253:
        return None
    return PodRef(namespace=place.namespace, name=pod, cluster=cluster)


def _service_of_pod(
    pod: str, ref: PodRef | None, place: _Place, owner: PodOwner | None, owners: Owners | None
) -> ServiceKey:
    if owner is not None:
        if owner.kind not in WORKLOAD_KINDS:
            about = place.object("Pod", pod)
            raise Unmapped(
                f"it is about the {about} of the {place.object(owner.kind, owner.name)}; {_ACTS_ON}"
            )
        if owner.key is not None:
            return owner.key
        return ServiceKey(environment=place.environment, service=_dns_label(owner.name, "pod"))
    read = read_pod_name(pod)
    if read.deployment is not None:
        return ServiceKey(environment=place.environment, service=_dns_label(read.deployment, "pod"))
    asked = "no cluster is connected to ask"
    if owners is not None:
        asked = "the cluster has no such pod" if ref in owners else "the cluster could not be asked"
    raise Unmapped(
        f"the name of the {place.object('Pod', pod)} does not identify its Deployment: {read.hint}; "
        f"{asked} for its owner"
    )


def _configured(
    subject: Mapping[str, str], place: _Place, owner: PodOwner | None, settings: Settings
) -> ServiceKey | None:
    """The service that SERVICE_WORKLOADS gives to the workload that the labels name."""
    if not place.home:
        return None
    pod = subject.get("pod")
    named = [(kind, subject[label]) for label, kind in _WORKLOADS.items() if label in subject]
    if owner is not None and owner.kind in WORKLOAD_KINDS:
        named.append((owner.kind, owner.name))
    if pod is not None and owner is None:
        named.append((DEPLOYMENT, read_pod_name(pod).deployment or ""))
    for kind, name in named:
        places = {f"{place.namespace}/{name}", f"{place.namespace}/{kind}/{name}".lower()}
        for written, workload in settings.service_workloads.items():
            if name and workload in places:
                environment, _, service = written.partition("/")
                return ServiceKey(environment=environment, service=service)
    return None


# ------------------------------------------------------------------ the place


def _place(labels: Mapping[str, str], subject: Mapping[str, str], settings: Settings) -> _Place:
    given = canonical_labels(labels)
    home = _home(settings)
    for name, value in home.items():
        if name in given and given[name] != value:
            raise Unmapped(
                f"label {name} is {shorten(given[name], 80)!r}, and ALERT_HOME_LABELS says that the cluster "
                f"of this agent is {value!r}; send the alert to the agent of that cluster"
            )
    label = _first(subject, ENVIRONMENT_LABELS, but=home)
    namespace = subject.get(_NAMESPACE)
    if namespace is None:
        label = label or _first(subject, ENVIRONMENT_LABELS, but={})
        if label is None:
            raise Unmapped("no label names the environment; add environment or namespace to the alert")
        return _Place(environment=_dns_label(*label), namespace=None, home=True)
    environments = [e for e, mapped in settings.environment_namespaces.items() if mapped == namespace]
    own = (_dns_label(environments[0] if environments else namespace, "namespace"), "namespace")
    if label is not None and label[0] == own[0]:
        label = None
    if label is None:
        return _Place(environment=own[0], namespace=namespace, home=True)
    environment = _ELSEWHERE.join((_dns_label(*label), _dns_label(namespace, "namespace")))
    if len(environment) > 63:
        raise Unmapped(
            f"the place {environment} is longer than 63 characters; name the label {label[1]} in "
            "ALERT_HOME_LABELS where it means the connected cluster"
        )
    return _Place(environment=environment, namespace=namespace, home=False)


def _in_cluster(labels: Mapping[str, str], settings: Settings) -> tuple[str, Settings]:
    """The cluster that the labels mean, and the settings of it alone; raises `Unmapped`."""
    if not settings.clusters:
        return UNNAMED, settings
    subject, _ = _subject(labels)
    environments = tuple(subject[name] for name in ENVIRONMENT_LABELS if name in subject)
    name = cluster_meant(canonical_labels(labels), environments, subject.get(_NAMESPACE), settings)
    return name, of_cluster(settings, name)


def _home(settings: Settings) -> dict[str, str]:
    return {spelled(name): value for name, value in settings.alert_home_labels.items()}


def _first(
    labels: Mapping[str, str], names: Iterable[str], *, but: Mapping[str, str]
) -> tuple[str, str] | None:
    return next(((labels[name], name) for name in names if name in labels and name not in but), None)


def _dns_label(value: str, label: str) -> str:
    if _DNS_LABEL.fullmatch(value) is None:
        raise Unmapped(
            f"label {label} is {shorten(value, 80)!r}; it must be a DNS label "
            "(a-z, 0-9 and -, at most 63 characters)"
        )
    return value
