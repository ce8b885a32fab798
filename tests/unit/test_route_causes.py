"""Changes of Services and network policies as causes: found, weighed against a release, handed over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.handover import handover
from app.agent.models import Cause, Evidence, Trigger
from app.agent.planner import make_plan
from app.agent.routes import (
    NETWORK_POLICY,
    SERVICE,
    RouteChange,
    RouteEffect,
    RouteFault,
    RouteObject,
    RoutesView,
)
from app.agent.workload import WorkloadView
from tests.unit.scenes import (
    CATALOGUE,
    DATABASE,
    DAY,
    KEY,
    LIMITS,
    NEW,
    OLD,
    at,
    crashing,
    curves,
    evidence,
    pods,
    released,
    step,
    workload,
)

ERRORS = Trigger.HIGH_ERROR_RATE
FAILING = curves(errors=step(-2.5, 0.001, 0.9))
"""Requests fail from two and a half minutes before the incident on."""


def change(minutes: float = -2.6, **fields: object) -> RouteChange:
    plain = RouteChange(
        kind=NETWORK_POLICY,
        name="deny",
        at=at(minutes),
        by="kubectl-edit",
        difference=("created", "podSelector every pod", "allowed ingress nothing"),
        effect=RouteEffect.CUTS,
        services=(KEY.service,),
    )
    return replace(plain, **fields)  # type: ignore[arg-type]  # a test names real fields


SELECTOR = change(kind=SERVICE, name="checkout", difference=("selector app=checkout -> app=checkout-2",))
NOWHERE = RouteFault(
    kind=SERVICE,
    name="checkout",
    words="selects no pod of the namespace (selector app=x)",
    written_at=at(-2.6),
)


def steady(routes: RoutesView | None) -> WorkloadView:
    """A workload without a change for a day."""
    return replace(workload([replace(OLD, created_at=at(-DAY))], pods(OLD)), routes=routes)


def seen(routes: RoutesView | None, view: WorkloadView | None = None, **fields: object) -> Evidence:
    shown = replace(view, routes=routes) if view is not None else steady(routes)
    found = evidence(ERRORS, workload=shown, sli=FAILING)
    return replace(found, **fields)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("routes", "cause"),
    [
        (RoutesView(changes=(change(),)), Cause.NETWORK_POLICY),
        (RoutesView(changes=(SELECTOR,)), Cause.SERVICE_ROUTING),
        (RoutesView(faults=(NOWHERE,)), Cause.SERVICE_ROUTING),
        (RoutesView(faults=(replace(NOWHERE, written_at=at(-600)),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(effect=RouteEffect.HARMLESS),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(effect=RouteEffect.UNKNOWN, difference=()),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(-30),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(not_before=at(-30)),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(not_before=at(-3)),)), Cause.NETWORK_POLICY),
        (RoutesView(changes=(change(-1),)), Cause.UNKNOWN),
        (RoutesView(changes=(change(services=("other",)),)), Cause.UNKNOWN),
        (RoutesView(), Cause.UNKNOWN),
        (None, Cause.UNKNOWN),
    ],
)
def test_a_change_that_cuts_requests_right_before_the_symptom_is_a_cause(
    routes: RoutesView | None, cause: Cause
) -> None:
    """A harmless one, an unseen one, an earlier or later one, and one of other pods are none."""
    diagnosis = diagnose(seen(routes))
    assert diagnosis.best.cause is cause


def test_a_change_that_the_watch_missed_is_shown_with_both_times() -> None:
    """The person sees that it is not known when it was made."""
    [words] = diagnose(seen(RoutesView(changes=(change(not_before=at(-3)),)))).best.evidence_for
    assert "between 30 s before the incident started and 6 s before the incident started" in words
    assert "the watch was interrupted" in words


def test_the_cause_is_escalated_with_object_author_and_difference() -> None:
    """No runbook acts on it; the first line to copy shows the object."""
    found = seen(RoutesView(changes=(change(),)))
    diagnosis = diagnose(found)
    plan = make_plan(diagnosis, found, CATALOGUE, LIMITS)
    assert not [one for one in plan.actions if one.target is not None]
    assert plan.runbook == "escalate-network-policy@1"
    [words] = diagnosis.best.evidence_for
    assert words == (
        "NetworkPolicy deny was changed by kubectl-edit 6 s before the incident started: created; "
        "podSelector every pod; allowed ingress nothing"
    )
    handed = handover(found, diagnosis.best.cause)
    assert handed is not None
    assert words in handed.facts
    assert handed.commands[0] == "kubectl -n prod get networkpolicy deny -o yaml --show-managed-fields"


def test_a_deleted_object_is_looked_for_among_its_kind() -> None:
    """It has no line of its own any more."""
    found = seen(RoutesView(changes=(replace(SELECTOR, difference=("deleted",), by=None),)))
    handed = handover(found, diagnose(found).best.cause)
    assert handed is not None
    assert handed.commands[0].startswith("kubectl -n prod get service -o 'custom-columns=")


def test_a_change_of_a_dependency_is_named_as_such() -> None:
    """The pods of the service itself are not concerned."""
    found = seen(RoutesView(changes=(change(services=(DATABASE.service,)),)), dependencies=(DATABASE,))
    best = diagnose(found).best
    assert best.cause is Cause.NETWORK_POLICY
    assert f"which affects the dependency {DATABASE.service}," in best.evidence_for[0]


def test_a_release_that_crashes_is_not_hidden() -> None:
    """Its own pods show what is wrong, whatever else was changed."""
    view = released(crashing(NEW))
    found = replace(seen(RoutesView(changes=(change(),)), view), triggers=(Trigger.CRASH_LOOP,))
    assert diagnose(found).best.cause is Cause.BAD_RELEASE


def test_a_policy_after_a_release_counts_against_it() -> None:
    """By the finding itself, and a harmless one by nothing."""
    view = workload([NEW, OLD], pods(NEW))

    def confidence(*changes: RouteChange) -> float:
        ranked = diagnose(seen(RoutesView(changes=changes), view)).hypotheses
        return next(one.confidence for one in ranked if one.cause is Cause.BAD_RELEASE)

    assert confidence(change()) < confidence(change(effect=RouteEffect.HARMLESS)) == confidence()


def test_many_objects_of_one_write_count_as_one() -> None:
    """A chart that brings ten policies beside a bad release does not clear the release."""
    view = workload([NEW, OLD], pods(NEW))

    def confidences(many: int, kind: str = NETWORK_POLICY) -> dict[Cause, float]:
        routes = RoutesView(changes=tuple(change(name=f"deny-{n}", kind=kind) for n in range(many)))
        return {one.cause: one.confidence for one in diagnose(seen(routes, view)).hypotheses}

    assert confidences(10) == confidences(1)
    assert confidences(10, kind=SERVICE) == confidences(1, kind=SERVICE)
    faults = tuple(replace(NOWHERE, name=f"shop-{n}") for n in range(10))
    [many, one] = [diagnose(seen(RoutesView(faults=found))).best for found in (faults, faults[:1])]
    assert many.confidence == one.confidence


def test_a_release_with_other_labels_is_the_cause_of_what_its_service_does_not_select() -> None:
    """The Service is as it was: going back is right, and the fault alone does not escalate."""
    view = workload([NEW, OLD], pods(NEW))
    ranked = diagnose(seen(RoutesView(faults=(NOWHERE,)), view)).hypotheses
    routing = next(one for one in ranked if one.cause is Cause.SERVICE_ROUTING)
    assert ranked[0].cause is Cause.BAD_RELEASE
    assert routing.confidence < 0.5


def test_a_service_that_selects_nothing_matters_where_pods_are_ready() -> None:
    """Without ready pods something else is wrong first."""
    unready = replace(steady(None), pods=pods(OLD, ready=False))
    found = diagnose(seen(RoutesView(faults=(NOWHERE,)), unready))
    assert Cause.SERVICE_ROUTING not in {one.cause for one in found.hypotheses}


def test_a_handover_without_a_cause_says_what_did_not_change() -> None:
    """And what could not be read, kind by kind."""
    objects = (
        RouteObject(kind=NETWORK_POLICY, name="default", unchanged_since=at(-2000)),
        RouteObject(kind=SERVICE, name="checkout", unchanged_since=at(-600)),
    )
    read = handover(seen(RoutesView(objects=objects)), Cause.UNKNOWN)
    assert read is not None
    assert "unchanged since 2026-11-20 02:00:00 UTC: NetworkPolicy default, Service checkout" in read.facts
    assert "not checked" not in "; ".join(read.facts)
    partly = handover(
        seen(RoutesView(objects=objects[1:], unread=("Ingress", "NetworkPolicy"))), Cause.UNKNOWN
    )
    assert partly is not None
    assert partly.facts[-1] == (
        "not checked, because the agent does not read them: changes of Ingresses, NetworkPolicies"
    )
    none = handover(seen(RoutesView()), Cause.UNKNOWN)
    assert none is not None
    assert "no Service, Ingress or NetworkPolicy that the agent may read concerns its pods" in none.facts


def test_a_change_that_is_no_cause_is_reported_all_the_same() -> None:
    """An unseen write of a Service: who, when, and that its difference is not known."""
    write = change(kind=SERVICE, name="checkout", effect=RouteEffect.UNKNOWN, difference=(), by="helm")
    found = seen(RoutesView(changes=(write,)))
    facts = diagnose(found).best.evidence_for
    assert (
        "Service checkout was changed by helm 6 s before the incident started (changed fields unknown)"
        in facts
    )
    assert "no change to the service itself is known around that time" not in facts


def test_what_sends_requests_nowhere_is_handed_over_where_nothing_explains_the_symptom() -> None:
    """Measurements contradict it, so that it is no cause; the person still sees it, and how to look at it."""
    found = handover(seen(RoutesView(faults=(NOWHERE,))), Cause.UNKNOWN)
    assert found is not None
    assert "Service checkout selects no pod of the namespace (selector app=x)" in found.facts
    assert not any("concerns its pods" in fact for fact in found.facts)
    assert found.commands[0] == "kubectl -n prod get service checkout -o yaml --show-managed-fields"
