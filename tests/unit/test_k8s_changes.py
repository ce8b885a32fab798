"""Each action is one JSON patch with its preconditions, its marker and its change, and nothing more."""

from __future__ import annotations

import pytest

from app.agent.ids import (
    IntentId,
    Json,
    JsonObject,
    JsonScalar,
)
from app.agent.models import (
    Action,
    ActionName,
    Risk,
    Snapshot,
)
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.patches import (
    check_unmoved,
    patch_for,
    snapshot_body,
    target_ref,
)
from app.errors import Conflict, Invalid
from tests.unit.k8s_samples import (
    CONFIG_REF,
    REF,
    config_map,
    container,
    deployment,
    replica_set,
    target,
    template,
)

INTENT = IntentId("int_1")
MARKER = "/metadata/annotations/self-healing-devops-agent~1intent"


def action(name: ActionName, ref: ObjectRef | None = REF, **parameters: JsonScalar) -> Action:
    return Action(name=name, risk=Risk.LOW, target=ref, parameters=parameters, expected_effect="", undo=None)


def patch(
    act: Action,
    current: JsonObject,
    *,
    revision: JsonObject | None = None,
    snapshot: Snapshot | None = None,
) -> list[JsonObject]:
    ref = act.target or REF
    return patch_for(act, INTENT, current, target=target(current, ref), revision=revision, snapshot=snapshot)


def change(act: Action, current: JsonObject, *, revision: JsonObject | None = None) -> dict[str, Json]:
    """Path to value of what follows preconditions and marker."""
    return {str(part["path"]): part["value"] for part in patch(act, current, revision=revision)[3:]}


def test_every_patch_begins_with_its_preconditions_and_marker() -> None:
    """The second copy of a patch is refused by the server, because the first one moved the version."""
    assert patch(action(ActionName.PAUSE), deployment(annotations={"a": "b"}))[:3] == [
        {"op": "replace", "path": "/metadata/uid", "value": "d-1"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "77"},
        {"op": "add", "path": MARKER, "value": INTENT},
    ]


def test_an_object_without_annotations_gets_them() -> None:
    """A JSON patch cannot add to what is not there."""
    assert patch(action(ActionName.PAUSE), deployment())[2] == {
        "op": "add",
        "path": "/metadata/annotations",
        "value": {"self-healing-devops-agent/intent": INTENT},
    }


def test_a_restart_is_the_same_for_the_same_intent() -> None:
    """No clock goes into it."""
    first = patch(action(ActionName.RESTART), deployment())
    assert first == patch(action(ActionName.RESTART), deployment())
    assert first[3] == {
        "op": "add",
        "path": "/spec/template/metadata/annotations",
        "value": {"kubectl.kubernetes.io/restartedAt": INTENT},
    }


def test_a_rollback_leaves_the_controllers_label_behind() -> None:
    """The template that was asked for, not the one the controller labelled."""
    old = template(container(image="shop:0"))
    labelled = template(container(image="shop:0"))
    labelled["metadata"] = {"labels": {"app": "shop", "pod-template-hash": "abc"}}
    changed = change(action(ActionName.ROLLBACK, revision=1), deployment(), revision=replica_set(1, labelled))
    assert changed == {"/spec/template": old}


def test_a_config_revert_takes_configuration_and_leaves_code() -> None:
    """By container name; what came since keeps its own, with the volumes it mounts."""
    old = template(
        container(
            image="shop:0", command=["old"], env=[{"name": "A", "value": "old"}], resources={"limits": {}}
        ),
        container("gone", image="gone:0"),
        volumes=[{"name": "conf", "configMap": {"name": "old"}}],
        initContainers=[container("init", env=[{"name": "I", "value": "old"}])],
        serviceAccountName="shop-before",
        imagePullSecrets=[{"name": "old"}],
    )
    sidecar = container("new", image="new:1", volumeMounts=[{"name": "cache", "mountPath": "/c"}])
    now = template(
        container(image="shop:1", command=["new"], envFrom=[{"configMapRef": {"name": "added"}}]),
        sidecar,
        volumes=[
            {"name": "conf", "configMap": {"name": "new"}},
            {"name": "cache", "emptyDir": {}},
            {"name": "unused", "emptyDir": {}},
        ],
        initContainers=[container("init", image="init:2")],
        serviceAccountName="shop",
        nodeSelector={"disk": "none"},
        imagePullSecrets=[{"name": "new"}],
    )
    current = deployment(spec={"template": now})
    changed = change(action(ActionName.REVERT_CONFIG, revision=1), current, revision=replica_set(1, old))
    assert changed == {
        "/spec/template": template(
            container(
                image="shop:1",
                command=["new"],
                env=[{"name": "A", "value": "old"}],
                resources={"limits": {}},
            ),
            sidecar,
            volumes=[{"name": "conf", "configMap": {"name": "old"}}, {"name": "cache", "emptyDir": {}}],
            initContainers=[container("init", image="init:2", env=[{"name": "I", "value": "old"}])],
            serviceAccountName="shop-before",
            imagePullSecrets=[{"name": "new"}],
        )
    }
    assert current == deployment(spec={"template": now}), "the object read stays as it was"


@pytest.mark.parametrize("name", [ActionName.ROLLBACK, ActionName.REVERT_CONFIG])
def test_going_back_to_what_is_asked_for_already_is_refused(name: ActionName) -> None:
    """A change that changes nothing would only spend the budget."""
    with pytest.raises(Invalid, match="already"):
        change(action(name, revision=2), deployment(), revision=replica_set(2))


@pytest.mark.parametrize("name", [ActionName.RESTART, ActionName.ROLLBACK, ActionName.REVERT_CONFIG])
def test_nothing_is_rolled_out_on_a_paused_deployment(name: ActionName) -> None:
    """It would have no effect now and a surprising one at the next resume."""
    old = replica_set(1, template(container(image="shop:0", env=[{"name": "A"}])))
    with pytest.raises(Invalid, match="paused"):
        change(action(name, revision=1), deployment(spec={"paused": True}), revision=old)


def test_config_map_data_is_replaced_whole() -> None:
    """Binary data goes back too where the snapshot holds it, and stays where it does not."""
    current = config_map(data={"a": "new", "b": "x"}, binaryData={"k": "AA=="})
    act = action(ActionName.REVERT_CONFIG, CONFIG_REF)

    def wanted(body: JsonObject) -> list[JsonObject]:
        return patch(act, current, snapshot=Snapshot(ref=CONFIG_REF, token="", body=body))[3:]

    assert wanted({"data": {"a": "old"}}) == [
        {"op": "add", "path": "/data", "value": {"a": "old"}},
        {"op": "add", "path": "/binaryData", "value": {"k": "AA=="}},
    ]
    assert wanted({"data": {}, "binaryData": {}}) == [
        {"op": "add", "path": "/data", "value": {}},
        {"op": "add", "path": "/binaryData", "value": {}},
    ]
    mangled: list[JsonObject] = [{}, {"data": {"a": 1}}]
    mangled += [{"data": {}, "binaryData": [1]}, {"data": {}, "binaryData": {"k": 1}}]
    for body in mangled:
        with pytest.raises(Invalid):
            wanted(body)
    with pytest.raises(Invalid, match="already"):
        wanted({"data": {"a": "new", "b": "x"}})


def test_a_snapshot_restores_what_it_was_taken_of() -> None:
    """Template, replicas and pause, and nothing of the controller's."""
    before = deployment(spec={"replicas": 0})
    body = snapshot_body(REF, before)
    snapshot = Snapshot(ref=REF, token="", body=body)
    operations = patch(action(ActionName.RESTORE), deployment(), snapshot=snapshot)[3:]
    assert {str(part["path"]): part["value"] for part in operations} == {
        "/spec/template": template(),
        "/spec/replicas": 0,
        "/spec/paused": False,
    }


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"template": {}, "replicas": 1, "paused": False},
        {"template": {"spec": {}}, "replicas": None, "paused": False},
        {"template": {"spec": {}}, "replicas": True, "paused": False},
        {"template": {"spec": {}}, "replicas": 1, "paused": "no"},
    ],
)
def test_a_mangled_snapshot_restores_nothing(spec: Json) -> None:
    """Half of a state is not put back."""
    with pytest.raises(Invalid):
        patch(
            action(ActionName.RESTORE),
            deployment(),
            snapshot=Snapshot(ref=REF, token="", body={"spec": spec}),
        )


@pytest.mark.parametrize(
    "ref",
    [
        None,
        ObjectRef(kind="Secret", namespace="payments", name="shop"),
        ObjectRef(kind="Deployment", namespace="payments", name="../../secrets/x"),
        ObjectRef(kind="Deployment", namespace="payments/x", name="shop"),
        ObjectRef(kind="Deployment", namespace="*", name="shop"),
        ObjectRef(kind="Deployment", namespace="payments", name=""),
    ],
)
def test_an_impossible_target_is_refused(ref: ObjectRef | None) -> None:
    """No name from outside becomes another path."""
    with pytest.raises(Invalid):
        target_ref(action(ActionName.RESTART, ref))


def test_an_object_that_moved_or_carries_the_intent_is_a_conflict() -> None:
    """Checked before anything is sent; the server checks again."""
    current = deployment()
    check_unmoved(current, target(current), INTENT)
    for moved in (deployment(resourceVersion="78"), deployment(uid="d-2")):
        with pytest.raises(Conflict):
            check_unmoved(moved, target(current), INTENT)
    marked = deployment(annotations={"self-healing-devops-agent/intent": INTENT})
    with pytest.raises(Conflict, match="already"):
        check_unmoved(marked, target(marked), INTENT)
    check_unmoved(marked, target(marked), IntentId("int_2"))


def test_a_config_revert_keeps_labels_and_the_restart_and_takes_annotations_back() -> None:
    """Labels come with the release; the annotation of a restart is neither's."""

    def labelled(build: str, **annotations: Json) -> JsonObject:
        return {**template(), "metadata": {"labels": {"build": build}, "annotations": {**annotations}}}

    restarted = "kubectl.kubernetes.io/restartedAt"
    now = labelled("43", **{"checksum/config": "new", restarted: "today"})
    old = labelled("42", **{"checksum/config": "old", restarted: "yesterday"})
    changed = change(
        action(ActionName.REVERT_CONFIG, revision=1),
        deployment(spec={"template": now}),
        revision=replica_set(1, old),
    )
    wanted = labelled("43", **{"checksum/config": "old", restarted: "today"})
    assert changed == {"/spec/template": wanted}


@pytest.mark.parametrize(
    ("undoes", "paths"),
    [
        ("rollback", ["/spec/template"]),
        ("restart", ["/spec/template"]),
        ("revert_config", ["/spec/template"]),
        ("scale", ["/spec/replicas"]),
        ("pause", ["/spec/paused"]),
        (None, ["/spec/template", "/spec/replicas", "/spec/paused"]),
    ],
)
def test_an_undo_puts_back_only_what_the_action_changed(undoes: str | None, paths: list[str]) -> None:
    """Replicas that an autoscaler set meanwhile stay its own."""
    act = action(ActionName.RESTORE, undoes=undoes)
    taken = Snapshot(ref=REF, token="t", body=snapshot_body(REF, deployment()))
    found = patch(act, deployment(spec={"replicas": 9}), snapshot=taken)
    assert [str(part["path"]) for part in found[3:]] == paths
