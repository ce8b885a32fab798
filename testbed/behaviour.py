"""What a pod of the bed does when it "runs", derived from its image, configuration and annotation.

One table for the stand-in kubelet (pod status) and for people who write tests.
"""

from __future__ import annotations

import re
from enum import StrEnum

from testbed.kubeapi import Pod

ANNOTATION = "testbed/behaviour"
SERVICE_LABEL = "app.kubernetes.io/name"
"""Which service a Deployment is of; by the same convention as the agent's."""
_LEAST_MEMORY_BYTES = 32 * 1024**2
_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


class Behaviour(StrEnum):
    """The closed list; the annotation `testbed/behaviour` takes these values."""

    READY = "ready"
    MISSING = "missing"
    """The image cannot be pulled: ErrImagePull, then ImagePullBackOff."""
    CRASH = "crash"
    """The process exits with 1 right after its start: CrashLoopBackOff."""
    BAD_COMMAND = "bad-command"
    """The command does not exist: StartError with 128, CrashLoopBackOff."""
    OOM = "oom"
    """Killed for memory right after its start: OOMKilled with 137, CrashLoopBackOff."""
    LEAK = "leak"
    """Ready and well for a while, then OOMKilled, and again."""
    UNREADY = "unready"
    """Runs, and its readiness probe never succeeds."""
    PENDING = "pending"
    """Scheduled, and never started."""


def image_words(image: str) -> frozenset[str]:
    """The words of an image reference: `shop/pay:1.2-errors` has shop, pay, 1, 2 and errors."""
    return frozenset(re.split(r"[^a-z0-9]+", image.lower()))


def memory_bytes(quantity: str) -> float:
    """A Kubernetes quantity of memory in bytes; raises `ValueError` when it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]i?|Ki)?", quantity)
    if found is None or (found.group(2) or "") not in _UNITS:
        raise ValueError(f"not a quantity of memory: {quantity!r}")
    return float(found.group(1)) * _UNITS[found.group(2) or ""]


def behaviour_of(pod: Pod) -> Behaviour:
    """The annotation decides, else the first of: image missing, bad command, memory, crash, probe, leak."""
    named = pod.metadata.annotations.get(ANNOTATION)
    if named is not None:
        return Behaviour(named)
    containers = pod.spec.containers
    words = frozenset().union(*(image_words(container.image) for container in containers))
    limits = [container.resources.limits.get("memory") for container in containers]
    probes = [container.readiness_probe for container in containers]
    if "missing" in words:
        return Behaviour.MISSING
    if any(container.command and container.command[0].startswith("/bad") for container in containers):
        return Behaviour.BAD_COMMAND
    if any(limit is not None and memory_bytes(limit) < _LEAST_MEMORY_BYTES for limit in limits):
        return Behaviour.OOM
    if "crash" in words:
        return Behaviour.CRASH
    if any(probe is not None and probe.http_get and probe.http_get.path == "/broken" for probe in probes):
        return Behaviour.UNREADY
    return Behaviour.LEAK if "leak" in words else Behaviour.READY
