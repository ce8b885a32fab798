"""Derives a pod's owner from the pod's name, where the name is unambiguous. Pure.

A ReplicaSet names its pods `deployment-hash-suffix`, a Job and a DaemonSet
`owner-suffix`, a StatefulSet `owner-ordinal`. The API server cuts the base of a
generated name at 58 characters, so that a name of 63 characters may have lost
its dash and part of its hash. Only a name that can be of nothing but a
Deployment names one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST_NAME = 63
_SUFFIX = "[bcdfghjklmnpqrstvwxz2456789]{5}"
"""The alphabet of generated names: no vowels, and none of 0, 1 and 3."""
# A template hash is a number of at most ten digits, each written as one of ten characters.
_OF_REPLICA_SET = re.compile(rf"(?P<base>.+)-(?P<hash>[456789bcdf]{{7,10}})-{_SUFFIX}")
_OF_CRON_JOB = re.compile(rf"(?P<base>.+)-(?P<minute>[0-9]{{7,11}})-(?:[0-9]+-)?{_SUFFIX}")
_GENERATED = re.compile(rf"(?P<base>.+)-{_SUFFIX}")
_ORDINAL = re.compile(r"(?P<base>.+)-[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodName:
    """A pod's name, read."""

    deployment: str | None = None
    """The Deployment that it names beyond doubt."""
    hint: str = ""
    """Why it names none, as the end of a sentence about the name."""


def read_pod_name(pod: str) -> PodName:
    """The Deployment derived from a pod's name, or the reason why there is none."""
    if len(pod) >= _LONGEST_NAME:
        return PodName(hint="it has the maximum length and may be truncated")
    if _OF_CRON_JOB.fullmatch(pod):
        return PodName(hint="it looks like the pod of a Job that a CronJob started")
    found = _OF_REPLICA_SET.fullmatch(pod)
    if found is not None:
        return PodName(deployment=found["base"])
    if _GENERATED.fullmatch(pod):
        return PodName(hint="it looks like the pod of a Job or of a DaemonSet")
    if _ORDINAL.fullmatch(pod):
        return PodName(hint="it has an ordinal, as a pod of a StatefulSet has")
    return PodName(hint="it does not match the name of a Deployment's pod")


def possible_owners(pod: str) -> tuple[str, ...]:
    """Every name that a workload behind a pod of this name may have, the longest first."""
    found = [pod]
    for form in (_GENERATED, _ORDINAL, _OF_REPLICA_SET, _OF_CRON_JOB):
        match = form.fullmatch(pod)
        if match is not None:
            found.append(match["base"])
    return tuple(dict.fromkeys(sorted(found, key=len, reverse=True)))
