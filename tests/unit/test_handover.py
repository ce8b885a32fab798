"""What a person gets who takes over: facts in words, the cluster's messages, lines to copy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.handover import handover
from app.agent.models import Cause, Diagnosis, Evidence, Hypothesis, Trigger
from app.agent.notes import handover_note, less_likely
from app.agent.workload import AutoscalerView, FailingContainer, ObjectRef, PodView, WorkloadView
from tests.unit.scenes import DAY, OLD, at, crashing, evidence, pods, workload


def blocked(reason: str, message: str = "", **changes: object) -> PodView:
    failing = FailingContainer(name="app", message=message)
    [pod] = pods(OLD, 1, ready=False, phase="Pending", waiting_reason=reason, failing=failing)
    return replace(pod, **changes)  # type: ignore[arg-type]  # a test names real fields


def seen(view: WorkloadView) -> Evidence:
    return evidence(Trigger.PODS_UNAVAILABLE, workload=view)


def of(view: WorkloadView, cause: Cause = Cause.UNKNOWN) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = handover(seen(view), cause)
    assert found is not None
    return found.facts, found.commands


MISSING = blocked("CreateContainerConfigError", 'configmap "settings" not found')
LOST = blocked("", node_lost=True, node="node-z", waiting_reason=None)
UNSCHEDULED = blocked("", unschedulable="0/3 nodes are available: 3 Insufficient cpu.", waiting_reason=None)

LINES = {
    "missing configuration": (MISSING, "kubectl -n prod get configmap settings"),
    "a lost node": (LOST, "kubectl describe node node-z"),
    "no node": (UNSCHEDULED, "kubectl -n prod describe pod checkout-6-0"),
    "a crash": (
        replace(crashing(OLD, 1)[0], failing=FailingContainer(name="app", exit_code=1)),
        "kubectl -n prod logs checkout-6-0 -c app --previous --tail=50",
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_the_first_line_to_copy_shows_what_is_wrong(case: str) -> None:
    """It only reads, and names namespace, object and container."""
    pod, line = LINES[case]
    facts, commands = of(workload([OLD], (pod, *pods(OLD, 2)[1:])))
    assert commands[0] == line
    assert facts[0] == "degraded: 1 of 3 replicas serve"
    assert facts[-1].startswith("pod checkout-6-0: ")


def test_the_lines_of_a_named_cluster_name_it() -> None:
    """Another cluster may have an object of that name in a namespace of that name."""
    view = workload([OLD], (MISSING, *pods(OLD, 2)[1:]))
    ref = ObjectRef(kind="Deployment", namespace="prod", name="checkout", cluster="east")
    facts, commands = of(replace(view, target=replace(view.target, ref=ref)))
    assert "it runs in cluster east: kubectl needs the context of that cluster" in facts
    assert commands[0] == "kubectl -n prod get configmap settings # cluster east"
    assert all(line.endswith(" # cluster east") for line in commands)
    assert not any("cluster" in line for line in of(view)[1])


def test_a_full_quota_and_a_scale_to_zero_have_their_own_line() -> None:
    """There is no pod to look at."""
    refused = workload([OLD], pods(OLD, 2), replica_failure="FailedCreate: exceeded quota: team")
    assert of(refused)[1][0] == "kubectl -n prod describe quota,limitrange"
    zero = workload([OLD], (), desired_replicas=0)
    assert of(zero, Cause.SCALED_TO_ZERO)[1][0] == (
        "kubectl -n prod get deployment checkout -o yaml --show-managed-fields"
    )


def test_owner_release_and_autoscaler_are_named() -> None:
    """A person must not fight them either."""
    scaler = AutoscalerView(kind="HorizontalPodAutoscaler", name="auto", minimum=2, maximum=3, wanted=3)
    view = workload(
        [OLD],
        pods(OLD),
        managed_by="argocd",
        released_by="Helm release payments",
        autoscalers=(scaler, AutoscalerView(kind="VerticalPodAutoscaler", name="sizes")),
    )
    assert of(view)[0][:-1] == (
        "3 of 3 replicas serve",
        "argocd manages it and reverts changes made in the cluster",
        "it was released by Helm release payments, which does not notice a rollback",
        "HorizontalPodAutoscaler auto sets its replicas between 2 and 3 and is at its maximum",
        "VerticalPodAutoscaler sizes sets the resources of its pods",
    )


def test_a_handover_without_a_cause_says_what_was_not_checked() -> None:
    """Secrets of the template by name, and lines that show who wrote what and when, without any content."""
    fed = replace(OLD, references=frozenset({"Secret db", "Secret api", "ConfigMap settings"}))
    facts, commands = of(workload([fed], pods(fed)))
    assert facts[-1] == (
        "not checked, because the agent does not read them: changes of Services, Ingresses, "
        "NetworkPolicies, and the content of Secret api, db"
    )
    writers = (
        "'custom-columns=KIND:.kind,NAME:.metadata.name,"
        "BY:.metadata.managedFields[*].manager,AT:.metadata.managedFields[*].time'"
    )
    assert commands == (
        f"kubectl -n prod get services,ingresses,networkpolicies -o {writers}",
        f"kubectl -n prod get secrets api db -o {writers}",
        "kubectl -n prod describe deployment checkout",
    )
    many = replace(OLD, references=frozenset(f"Secret s{number}" for number in range(5)))
    assert of(workload([many], pods(many)))[0][-1].endswith("Secret s0, s1, s2 and 2 more")
    assert "Secret" not in of(workload([OLD], pods(OLD)))[0][-1]
    for known in (
        of(workload([fed], pods(fed)), Cause.BAD_RELEASE),
        of(workload([fed], (LOST, *pods(fed)[1:]))),
    ):
        assert "not checked" not in " ".join(known[0])
        assert "managedFields" not in " ".join(known[1])


def test_the_note_repeats_the_clusters_own_messages() -> None:
    """At most three, and every line to copy in the data."""
    view = workload([OLD], (MISSING, *pods(OLD, 2)[1:]), warnings=("Failed: a", "BackOff: b", "c: c", "d: d"))
    found = seen(view)
    note = handover_note(found, diagnose(found), at(0))
    assert note is not None
    assert note.message == (
        "Handover: degraded: 1 of 3 replicas serve; pod checkout-6-0: ConfigMap settings does not exist. "
        "Warnings of the cluster: Failed: a; BackOff: b; c: c. "
        "To inspect: kubectl -n prod get configmap settings"
    )
    assert note.data["commands"] == [
        "kubectl -n prod get configmap settings",
        "kubectl -n prod describe pod checkout-6-0",
        "kubectl -n prod describe deployment checkout",
    ]
    assert handover_note(replace(found, workload=None), diagnose(found), at(0)) is None


def test_the_note_says_what_is_less_likely_and_why() -> None:
    """A release whose pods served well before the symptom is named with the finding that clears it."""
    best = Hypothesis(cause=Cause.UNKNOWN, confidence=0.8, rule="unknown", evidence_for=("x",))
    other = Hypothesis(
        cause=Cause.BAD_RELEASE,
        confidence=0.2,
        rule="bad_release",
        evidence_for=("y",),
        evidence_against=("its pods had served at the usual level for 2 m", "z"),
    )
    assert less_likely(Diagnosis(hypotheses=(best, other), at=at(0))) == [
        "bad release (20%), because its pods had served at the usual level for 2 m"
    ]


def test_evictions_and_pods_that_do_not_end_are_named() -> None:
    """A node that is short of something says so only on the pods that it evicted, which say nothing else."""
    low = "The node was low on resource: ephemeral-storage."
    (gone,) = pods(OLD, 1, phase="Failed", ready=False, evicted=low, node="node-z")
    (held,) = pods(OLD, 1, ready=False, ends_by=at(-2))
    (ending,) = pods(OLD, 1, ready=False, ends_by=at(0.2))
    facts, _ = of(workload([OLD], (gone, replace(held, name="held"), replace(ending, name="ending"))))
    assert f"1 pod was evicted, the last from node node-z: {low}" in facts
    late = next(one for one in facts if "should have ended" in one)
    assert late.startswith("held should have ended 2 m 18 s ago")
    assert "ending" not in late.partition(" should")[0]


def test_a_pod_that_fails_beside_older_ones_of_its_template_points_at_secrets() -> None:
    """A credential that was rotated under its name stops only those that start after it."""
    fed = replace(OLD, references=frozenset({"Secret db", "ConfigMap settings"}))
    young = replace(crashing(fed, 1)[0], name="young", created_at=at(-1))
    view = workload([fed], (young, *pods(fed, 3)[1:]))
    facts, commands = of(view)
    assert "older pods with the same template are healthy, and the agent does not read Secret db" in facts[-1]
    assert commands[0].startswith("kubectl -n prod get secrets db -o ")
    for other in (
        workload([OLD], (replace(young, template_hash=OLD.template_hash), *pods(OLD, 3)[1:])),
        workload([replace(fed, references=None)], (young, *pods(fed, 3)[1:])),
        workload([fed], (young,)),
        workload([fed], (replace(young, created_at=at(-9 * DAY)), *pods(fed, 3)[1:])),
    ):
        assert not any("does not read Secret" in fact for fact in of(other)[0])
    assert not any("does not read Secret" in fact for fact in of(view, Cause.BAD_CONFIG)[0])
