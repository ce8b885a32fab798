"""Who else holds a workload: read from owner references, marks, field managers and other objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from app.agent.actions import ACTIONS, Resolved, Unmet
from app.agent.diagnosis import diagnose
from app.agent.ids import Json, JsonObject
from app.agent.models import ActionName, Cause, Trigger
from app.agent.workload import AutoscalerView, ScaleChange, WorkloadView
from app.connectors.kubernetes.api import Connection, Kind, Listing, ReadApi
from app.connectors.kubernetes.controllers import ABSENT_FOR, FRESH_FOR, ControllerReader
from app.connectors.kubernetes.views import WorkloadObjects, managed_by, workload_view
from app.connectors.kubernetes.views.owners import released_by, scaled
from app.errors import Forbidden, NotFound
from app.testing import VirtualClock
from tests.unit.k8s_samples import REF, deployment, replica_set
from tests.unit.scenes import LIMITS, OLD, crashing, curves, evidence, pods, revision, step, workload

CANARY: JsonObject = {
    "apiVersion": "flagger.app/v1beta1",
    "kind": "Canary",
    "name": "shop",
    "controller": True,
}


def holder(manager: str, fields: JsonObject, **more: Json) -> JsonObject:
    return {"manager": manager, "time": "2026-02-20T17:00:00Z", "fieldsV1": fields, **more}


SPEC: JsonObject = {"f:spec": {"f:template": {}}}
REPLICAS: JsonObject = {"f:spec": {"f:replicas": {}}}


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"ownerReferences": [CANARY]}, "Canary shop"),
        ({"ownerReferences": [{"kind": "Queue", "name": "orders", "controller": True}]}, "Queue orders"),
        ({"ownerReferences": [{"kind": "Queue", "name": "orders"}]}, None),
        (
            {
                "labels": {"app.kubernetes.io/instance": "shop"},
                "managedFields": [holder("argocd-controller", SPEC, operation="Apply")],
            },
            "argocd",
        ),
        ({"managedFields": [holder("kustomize-controller", SPEC)]}, "flux"),
        ({"managedFields": [holder("argocd-controller", {"f:metadata": {}})]}, None),
        ({"managedFields": [holder("argocd-controller", SPEC, subresource="status")]}, None),
        ({"managedFields": [holder("helm", SPEC), holder("kubectl", SPEC)]}, None),
        ({"labels": {"kapp.k14s.io/app": "1"}}, "kapp-controller"),
        ({"annotations": {"configmanagement.gke.io/managed": "enabled"}}, "Config Sync"),
    ],
)
def test_every_kind_of_owner_is_named(metadata: JsonObject, owner: str | None) -> None:
    """A controller's reference of any kind, tracking by label alone, and field managers of the spec."""
    assert managed_by(deployment(metadata=metadata)) == owner


def test_a_helm_release_is_named_and_owns_nothing() -> None:
    """Helm does not notice a rollback: it is drift, and the next release is the person's."""
    item = deployment(
        labels={"app.kubernetes.io/managed-by": "Helm"},
        annotations={"meta.helm.sh/release-name": "payments", "meta.helm.sh/release-namespace": "prod"},
    )
    assert managed_by(item) is None
    assert released_by(item) == "Helm release payments"
    assert released_by(deployment()) is None


def seen(item: JsonObject, *stand_ins: JsonObject, autoscalers: tuple[JsonObject, ...] = ()) -> WorkloadView:
    found = WorkloadObjects(
        workload=item,
        revisions=(),
        pods=(),
        config_maps=(),
        events=(),
        autoscalers=autoscalers,
        stand_ins=stand_ins,
    )
    return workload_view(found, REF, datetime(2026, 2, 20, 18, tzinfo=UTC))


def rollout(name: str, aim: str, field: str = "workloadRef", kind: str = "Rollout") -> JsonObject:
    return {"kind": kind, "metadata": {"name": name}, "spec": {field: {"kind": "Deployment", "name": aim}}}


def test_what_runs_the_pods_of_a_workload_at_zero_is_named() -> None:
    """An Argo Rollout with a reference to it, a Canary that aims at it, or their mark on the replicas."""
    zero = deployment(spec={"replicas": 0})
    by_reference = seen(zero, rollout("other", "cart"), rollout("shop-rollout", "shop"))
    assert (by_reference.served_by, by_reference.managed_by) == ("Rollout shop-rollout",) * 2
    by_target = seen(zero, rollout("shop", "shop", "targetRef", "Canary"))
    assert (by_target.served_by, by_target.managed_by) == ("Canary shop",) * 2
    marked = deployment(
        spec={"replicas": 0}, managedFields=[holder("rollouts-controller", REPLICAS, subresource="scale")]
    )
    assert seen(marked).served_by == "a Rollout"
    assert seen(zero, rollout("other", "cart")).served_by is None
    while_it_runs = seen(deployment(), rollout("shop", "shop", "targetRef", "Canary"))
    assert (while_it_runs.served_by, while_it_runs.managed_by) == (None, "Canary shop")


def test_who_scaled_a_workload_is_named_with_the_time_where_there_is_one() -> None:
    """The subresource `scale` leaves no time."""
    by_hand = deployment(managedFields=[holder("kubectl-edit", REPLICAS)])
    assert scaled(by_hand) == ScaleChange(by="kubectl-edit", at=datetime(2026, 2, 20, 17, tzinfo=UTC))
    by_scale = holder("kubectl", REPLICAS, subresource="scale")
    del by_scale["time"]
    assert scaled(deployment(managedFields=[by_scale])) == ScaleChange(by="kubectl", at=None)
    zero = deployment(spec={"replicas": 0}, managedFields=[holder("kubectl", SPEC)])
    followed = replica_set(1, managedFields=[holder("kube-controller-manager", REPLICAS)])
    since = datetime(2026, 2, 20, 17, tzinfo=UTC)
    assert scaled(zero, (followed,)) == ScaleChange(by=None, at=since)
    assert scaled(deployment(managedFields=[holder("kubectl", SPEC)])) is None
    assert scaled(deployment()) is None


def scaler(kind: str, aim: str = "shop", status: JsonObject | None = None, **spec: Json) -> JsonObject:
    ref = "targetRef" if kind == "VerticalPodAutoscaler" else "scaleTargetRef"
    target: JsonObject = {"kind": "Deployment", "name": aim}
    return {"kind": kind, "metadata": {"name": "auto"}, "spec": {ref: target, **spec}, "status": status or {}}


def test_autoscalers_are_read_with_their_bounds() -> None:
    """Those that aim at the workload; what is not set has the default of its kind."""
    items = (
        scaler("HorizontalPodAutoscaler", minReplicas=2, maxReplicas=2),
        scaler("HorizontalPodAutoscaler", aim="cart", maxReplicas=9),
        scaler("ScaledObject"),
        scaler("VerticalPodAutoscaler"),
    )
    horizontal, event_driven, vertical = seen(deployment(), autoscalers=items).autoscalers
    assert (horizontal.minimum, horizontal.maximum, horizontal.at_maximum) == (2, 2, True)
    assert (event_driven.minimum, event_driven.maximum, event_driven.at_maximum) == (0, 100, False)
    calm = scaler("HorizontalPodAutoscaler", maxReplicas=2, status={"desiredReplicas": 1})
    assert not seen(deployment(), autoscalers=(calm,)).autoscalers[0].at_maximum
    assert (vertical.sets_replicas, str(vertical)) == (False, "VerticalPodAutoscaler auto")


# ---------------------------------------------------------------- reading

HPA: JsonObject = {"metadata": {"name": "auto"}}


class Cluster(ReadApi):
    """A cluster without KEDA, Rollouts and Canaries, in which VPAs may not be read."""

    def __init__(self) -> None:
        super().__init__(cast("Connection", None))
        self.asked: list[Kind] = []

    async def list(
        self, kind: Kind, namespace: str, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        assert (namespace, labels, fields) == ("prod", None, None)
        self.asked.append(kind)
        if kind is Kind.HORIZONTAL_POD_AUTOSCALER:
            return Listing(items=(HPA,), version="1")
        if kind is Kind.VERTICAL_POD_AUTOSCALER:
            raise Forbidden("forbidden: cannot list verticalpodautoscalers")
        raise NotFound("404 page not found")


async def test_kinds_that_are_absent_or_forbidden_are_left_out_and_asked_for_later() -> None:
    """Reading a workload never fails for them, and does not ask five times a second."""
    api, clock = Cluster(), VirtualClock()
    reader = ControllerReader(api, clock)
    found = await reader.read("prod")
    assert found.autoscalers == ({**HPA, "kind": "HorizontalPodAutoscaler"},)
    assert found.stand_ins == ()
    assert found.unread == ("forbidden: cannot list verticalpodautoscalers",)
    assert len(api.asked) == 5
    assert await reader.read("prod") == found
    assert len(api.asked) == 5
    await clock.advance((FRESH_FOR + timedelta(seconds=1)).total_seconds())
    await reader.read("prod")
    assert api.asked[5:] == [Kind.HORIZONTAL_POD_AUTOSCALER]
    await clock.advance((ABSENT_FOR + timedelta(seconds=1)).total_seconds())
    await reader.read("prod")
    assert len(api.asked) == 11


# ---------------------------------------------------------------- what follows

FULL = AutoscalerView(kind="HorizontalPodAutoscaler", name="auto", minimum=2, maximum=3, wanted=3)
SURGE = curves(requests=step(-3, 20.0, 90.0), errors=step(-2.5, 0.001, 0.13))


def test_a_scale_that_an_autoscaler_would_override_is_not_tried() -> None:
    """At its maximum it is evidence of a surge, and the refusal says what would help."""
    view = workload([OLD], pods(OLD), autoscalers=(FULL,))
    seen = evidence(Trigger.HIGH_ERROR_RATE, workload=view, sli=SURGE)
    refused = ACTIONS[ActionName.SCALE].resolve({"by": 2}, seen, LIMITS)
    assert isinstance(refused, Unmet)
    assert refused.reason == (
        "HorizontalPodAutoscaler auto sets the replicas of Deployment prod/checkout between 2 and 3 "
        "and is at its maximum: only a higher maximum adds replicas"
    )
    [found] = [h for h in diagnose(seen).hypotheses if h.cause is Cause.TRAFFIC_SURGE]
    told = found.evidence_for
    assert "HorizontalPodAutoscaler auto is at its maximum of 3 replicas" in told


@pytest.mark.parametrize("name", [ActionName.RESTART, ActionName.ROLLBACK, ActionName.SCALE])
def test_what_another_object_runs_is_left_to_that_object(name: ActionName) -> None:
    """A restart too: the owner takes it for a release, or undoes it."""
    view = workload([OLD], pods(OLD), managed_by="Canary shop")
    parameters = {"by": 1} if name is ActionName.SCALE else {"to": "previous_healthy"}
    refused = ACTIONS[name].resolve(
        {} if name is ActionName.RESTART else parameters, evidence(workload=view), LIMITS
    )
    assert isinstance(refused, Unmet)
    assert "act on Canary shop instead" in refused.reason


def test_a_rollback_of_a_helm_release_says_that_helm_does_not_notice() -> None:
    """Allowed as policy says; the next release is built on what Helm believes to be installed."""
    new = revision(7, -3)
    view = workload([new, OLD], (*crashing(new, 1), *pods(OLD, 2)), released_by="Helm release payments")
    resolved = ACTIONS[ActionName.ROLLBACK].resolve(
        {"to": "previous_healthy"}, evidence(workload=view), LIMITS
    )
    assert isinstance(resolved, Resolved)
    assert "Helm release payments does not notice it: watch the next release" in (resolved.expected_effect)
