"""The obstacles to creating, scheduling or starting pods, read from the cluster's own messages. Pure.

The messages are those of the scheduler, the kubelet, the container runtimes and the
admission chain. A message that matches no pattern leads to "unknown", never to a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from app.agent.workload import PodView, WarningView

_MOUNT_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_NOT_FOUND = re.compile(
    r'\b(configmap|secret|persistentvolumeclaim|serviceaccount) "([^"]+)" not found', re.I
)
_NO_KEY = re.compile(r"couldn't find key (\S+) in (ConfigMap|Secret) \S*?([^/\s]+)$")
_NO_ITEM = re.compile(r"references non-existent (?:config|secret) key: (\S+)")
_KINDS = {
    "configmap": "ConfigMap",
    "secret": "Secret",
    "persistentvolumeclaim": "PersistentVolumeClaim",
    "serviceaccount": "ServiceAccount",
}


# ---------------------------------------------------------------- missing objects


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingObject:
    """An object, or a key of one, that a pod needs and that does not exist."""

    kind: str
    name: str
    """Empty where the message does not name it."""
    key: str | None = None

    @property
    def reference(self) -> str:
        """As `Revision.references` names it."""
        return f"{self.kind} {self.name}".strip()

    def __str__(self) -> str:
        return self.reference if self.key is None else f"key {self.key} of {self.reference}"


def missing_objects(pod: PodView) -> tuple[MissingObject, ...]:
    """The objects that a pod lacks to start, by the message of the node and by its events."""
    if pod.ready:
        return ()
    said = [pod.failing.message] if pod.failing is not None else []
    said += [one.message for one in pod.warnings if one.reason in _MOUNT_EVENTS | {"Failed"}]
    return tuple(dict.fromkeys(found for message in said for found in missing_in(message)))


def missing_in(message: str) -> Iterator[MissingObject]:
    """The missing objects that a message names."""
    for kind, name in _NOT_FOUND.findall(message):
        yield MissingObject(kind=_KINDS[kind.lower()], name=name)
    key = _NO_KEY.search(message.strip())
    if key is not None:
        yield MissingObject(kind=key[2], name=key[3], key=key[1])
    item = _NO_ITEM.search(message)
    if item is not None:
        yield MissingObject(kind="ConfigMap" if "config key" in item[0] else "Secret", name="", key=item[1])


# ---------------------------------------------------------------- images


class PullFault(StrEnum):
    """Why an image is not pulled."""

    MISSING = "the registry has no such image"
    DENIED = "the registry denies access to the image"
    UNREACHABLE = "the registry does not answer"
    UNKNOWN = "the image cannot be pulled"


PULL_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_UNREACHABLE = re.compile(
    r"i/o timeout|connection (?:refused|reset|timed out)|no such host|server misbehaving|deadline exceeded"
    r"|TLS handshake timeout|no route to host|network is unreachable|unexpected EOF|toomanyrequests"
    r"|Too Many Requests|\b50[0234] (?:Internal|Bad Gateway|Service|Gateway)|status(?: code)?:? 50[0234]"
    r"|RegistryUnavailable|request canceled|Client\.Timeout",
    re.I,
)
_NO_IMAGE = re.compile(
    r"manifest unknown|manifest for \S+ not found|name unknown|: not found|404 Not Found"
    r"|no match for platform|does not exist|invalid reference|couldn't parse image",
    re.I,
)
_DENIED = re.compile(r"unauthorized|authorization failed|access denied|\b403\b|\b401\b|forbidden", re.I)


def pull_fault(pod: PodView) -> PullFault:
    """Why the pod's image is not pulled, by what its node said last that names a reason."""
    if pod.waiting_reason in ("InvalidImageName", "ErrImageNeverPull"):
        return PullFault.MISSING
    if pod.waiting_reason == "RegistryUnavailable":
        return PullFault.UNREACHABLE
    said = [pod.failing.message] if pod.failing is not None else []
    said += [one.message for one in pod.warnings if one.reason == "Failed"]
    found = (fault for message in said if (fault := _pull_fault(message)) is not PullFault.UNKNOWN)
    return next(found, PullFault.UNKNOWN)


def _pull_fault(message: str) -> PullFault:
    if _UNREACHABLE.search(message):
        return PullFault.UNREACHABLE
    if _NO_IMAGE.search(message):
        return PullFault.MISSING
    return PullFault.DENIED if _DENIED.search(message) else PullFault.UNKNOWN


# ---------------------------------------------------------------- scheduling


class Obstacle(StrEnum):
    """Why no node takes a pod; the values are the words for it."""

    SELECTOR = "no node matches its node selector, affinity or spread constraints"
    TAINT = "nodes have taints that it does not tolerate"
    CORDON = "nodes are cordoned"
    CAPACITY = "no node has enough free resources"
    VOLUME = "its volume claim is not bound, or bound elsewhere"
    UNKNOWN = "no node takes it"


_OBSTACLES = (
    (Obstacle.VOLUME, re.compile(r"persistentvolumeclaim|volume|storageclass", re.I)),
    (Obstacle.SELECTOR, re.compile(r"affinity|selector|topology spread|anti-affinity", re.I)),
    (Obstacle.CORDON, re.compile(r"unschedulable", re.I)),
    (Obstacle.TAINT, re.compile(r"taint", re.I)),
    (Obstacle.CAPACITY, re.compile(r"Insufficient|Too many pods|free ports", re.I)),
)
_PREEMPTION = re.compile(r"\bpreemption:.*", re.S)

OBSTACLE_FIELDS = {
    Obstacle.SELECTOR: ("nodeSelector", "affinity", "topologySpreadConstraints", "nodeName", "label "),
    Obstacle.TAINT: ("tolerations", "nodeSelector", "affinity"),
    Obstacle.CORDON: ("nodeSelector", "affinity", "tolerations", "nodeName"),
    Obstacle.CAPACITY: ("resources of ", "nodeSelector", "affinity", "ports of ", "hostNetwork"),
    Obstacle.VOLUME: ("volumes",),
    Obstacle.UNKNOWN: ("nodeSelector", "affinity", "tolerations", "resources of ", "volumes", "scheduler"),
}
"""The fields of a template (by prefix) whose change can cause such an obstacle."""


def obstacles(message: str) -> tuple[Obstacle, ...]:
    """The obstacles that the scheduler names, without its notes on preemption; a volume comes first."""
    said = _PREEMPTION.sub("", message)
    parts = [part for part in re.split(r"[,;:]|\. ", said) if part.strip()]
    found = {next((kind for kind, words in _OBSTACLES if words.search(part)), None) for part in parts}
    return tuple(kind for kind, _ in _OBSTACLES if kind in found) or (Obstacle.UNKNOWN,)


# ---------------------------------------------------------------- storage and admission


def mount_warning(pod: PodView) -> WarningView | None:
    """The newest event about a volume that cannot be attached or mounted, of a pod that has not started."""
    if pod.ready or pod.phase != "Pending":
        return None
    return next((one for one in pod.warnings if one.reason in _MOUNT_EVENTS), None)


class Refusal(StrEnum):
    """Why the API server refuses to create pods; the values are the words for it."""

    QUOTA = "a quota or limit range refuses new pods"
    POD_SECURITY = "Pod Security refuses the pods of this template"
    UNANSWERED = "an admission webhook does not answer"
    ADMISSION = "an admission policy refuses the pods"
    SERVICE_ACCOUNT = "the service account of the pods does not exist"
    OTHER = "the API server refuses the pods"


_REFUSALS = (
    (Refusal.UNANSWERED, re.compile(r"failed (?:calling|to call) webhook", re.I)),
    (Refusal.QUOTA, re.compile(r"quota|LimitRange|(?:maximum|minimum) \S+ usage per|must specify", re.I)),
    (Refusal.POD_SECURITY, re.compile(r"violates PodSecurity", re.I)),
    (Refusal.ADMISSION, re.compile(r"admission webhook|AdmissionPolicy|denied the request", re.I)),
    (Refusal.SERVICE_ACCOUNT, re.compile(r"service ?account", re.I)),
)

REFUSAL_FIELDS: dict[Refusal, tuple[str, ...]] = {
    Refusal.UNANSWERED: (),
    Refusal.QUOTA: ("resources of ", "priorityClassName", "volumes"),
    Refusal.POD_SECURITY: ("securityContext", "volumes", "host", "shareProcessNamespace", "ports of "),
    Refusal.SERVICE_ACCOUNT: ("serviceAccount",),
}
"""The fields of a template (by prefix) whose change can cause the refusal; any field for the others.

None for a webhook that does not answer: it refuses the pods of every template alike.
"""


def refusal(message: str) -> Refusal:
    """The kind of a `FailedCreate` message."""
    return next((kind for kind, words in _REFUSALS if words.search(message)), Refusal.OTHER)


# ---------------------------------------------------------------- ends and probes

_EXITS = {
    0: "ended normally with exit code 0",
    126: "could not execute its command (exit code 126)",
    127: "did not find its command (exit code 127)",
    128: "could not be started (exit code 128)",
    134: "aborted itself (SIGABRT, exit code 134)",
    137: "was killed (SIGKILL, exit code 137), not for memory",
    139: "crashed with a segmentation fault (exit code 139)",
    143: "was terminated (SIGTERM, exit code 143)",
}


def exit_words(code: int | None, reason: str | None) -> str:
    """How a container ended, in words: only the kernel's kill means out of memory."""
    if reason == "OOMKilled":
        return "was killed for using too much memory (exit code 137)"
    if code is None:
        return "ended" if reason is None else f"ended ({reason})"
    return _EXITS.get(code, f"exited with code {code}")


_PROBE = re.compile(r"^(Readiness|Liveness|Startup) probe (?:failed|errored)[^:]*:?\s*(.*)", re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailure:
    """The failures of one probe of a pod, by its events."""

    probe: str
    """`readiness`, `liveness` or `startup`."""
    count: int
    said: str

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"its {self.probe} probe failed {times}" + (f": {self.said}" if self.said else "")


def probe_failures(pod: PodView) -> tuple[ProbeFailure, ...]:
    """One entry for each probe that failed, with the total of its events and the newest message."""
    found: dict[str, ProbeFailure] = {}
    for one in pod.warnings:
        match = _PROBE.match(one.message) if one.reason in ("Unhealthy", "ProbeWarning") else None
        if match is None:
            continue
        probe = match[1].lower()
        newest = found.get(probe)
        said = newest.said if newest is not None else match[2].strip()
        count = one.count + (newest.count if newest is not None else 0)
        found[probe] = ProbeFailure(probe=probe, count=count, said=said)
    return tuple(found.values())
