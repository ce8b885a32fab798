"""A pod's name names a Deployment only where it can be of nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.alerts.pod_names import possible_owners, read_pod_name

SUFFIX = st.text("bcdfghjklmnpqrstvwxz2456789", min_size=5, max_size=5)
HASH = st.text("456789bcdf", min_size=7, max_size=10)
BASE = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z][a-z0-9]{0,9}){0,3}", fullmatch=True)


def generated(base: str, suffix: str) -> str:
    """A name as the API server makes it: the base cut at 58 characters, then five more."""
    return base[:58] + suffix


@given(base=BASE, hash_=HASH.filter(lambda text: not text.isdigit()), suffix=SUFFIX)
def test_the_pod_of_a_deployment_names_it(base: str, hash_: str, suffix: str) -> None:
    """As long as its whole name fits; and a name that was cut names nothing."""
    pod = generated(f"{base}-{hash_}-", suffix)
    read = read_pod_name(pod)
    assert read.deployment == (base if len(pod) < 63 else None)
    assert base in possible_owners(pod) or len(pod) == 63


@given(base=BASE, minute=st.integers(20_000_000, 99_999_999), suffix=SUFFIX)
def test_the_pod_of_a_cron_job_names_no_deployment(base: str, minute: int, suffix: str) -> None:
    """Though the minute may read like a hash."""
    assert read_pod_name(generated(f"{base}-{minute}-", suffix)).deployment is None


@given(
    base=st.from_regex(r"[a-z]{6,60}(-[a-z]{6,40}){0,3}", fullmatch=True),
    suffix=SUFFIX,
    ordinal=st.integers(0, 999),
)
def test_pods_of_other_workloads_name_no_deployment(base: str, suffix: str, ordinal: int) -> None:
    """A Job, a DaemonSet, an indexed Job, a StatefulSet, a pod that was made by hand."""
    for pod in (
        generated(f"{base}-", suffix),
        generated(f"{base}-{ordinal}-", suffix),
        f"{base}-{ordinal}",
        base,
    ):
        found = read_pod_name(pod)
        assert found.deployment is None
        assert found.hint


@pytest.mark.parametrize(
    ("pod", "hint"),
    [
        ("sums-29384105-7xk2d", "CronJob"),
        ("sums-45678945-7xk2d", "CronJob"),
        ("sums-29384105-0-7xk2d", "CronJob"),
        ("worker-rstvwxz-k8s2z", "Job"),
        ("worker-0123bcdf-k8s2z", "Job"),
        ("shipper-7xk2d", "DaemonSet"),
        ("queue-11", "StatefulSet"),
        ("kube-scheduler-node.example", "match"),
        ("", "match"),
        ("x" * 63, "truncated"),
        ("x" * 300, "truncated"),
    ],
)
def test_a_name_that_identifies_nothing_says_why(pod: str, hint: str) -> None:
    """In words that go on after "the name does not tell its Deployment"."""
    read = read_pod_name(pod)
    assert read.deployment is None
    assert hint in read.hint
