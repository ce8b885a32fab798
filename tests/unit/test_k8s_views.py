"""What is read from API objects, and what is deliberately not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.agent.evidence.conditions import longer_than_usual
from app.agent.ids import Json, JsonObject
from app.agent.models import Action, ActionName, Risk
from app.agent.workload import WorkloadView
from app.connectors.kubernetes.templates import (
    code_hash,
    config_hash,
    config_map_names,
    template_fields,
    template_hash,
    template_of,
)
from app.connectors.kubernetes.views import (
    WorkloadObjects,
    managed_by,
    target_state,
    workload_view,
)
from app.connectors.kubernetes.views.owners import managed_as
from tests.unit.k8s_samples import CONFIG_REF, REF, config_map, container, deployment, replica_set, template

NOW = datetime(2026, 2, 20, 18, tzinfo=UTC)


def view(
    found: JsonObject | None = None,
    *,
    replica_sets: tuple[JsonObject, ...] = (),
    pods: tuple[JsonObject, ...] = (),
    events: tuple[JsonObject, ...] = (),
    unread: tuple[str, ...] = (),
) -> WorkloadView:
    objects = WorkloadObjects(
        workload=found or deployment(),
        revisions=replica_sets,
        pods=pods,
        config_maps=(),
        events=events,
        unread=unread,
    )
    return workload_view(objects, REF, NOW)


def pod(*statuses: JsonObject, owner: str = "rs-1", init: tuple[JsonObject, ...] = ()) -> JsonObject:
    return {
        "metadata": {
            "name": "shop-1-x",
            "uid": "p-1",
            "ownerReferences": [{"controller": True, "uid": owner}],
        },
        "status": {"containerStatuses": list(statuses), "initContainerStatuses": list(init)},
    }


def terminated(reason: str, at: str) -> JsonObject:
    return {"terminated": {"reason": reason, "finishedAt": at}}


# ------------------------------------------------------------------ hashes


def test_the_controllers_label_is_no_part_of_a_template() -> None:
    """A Deployment's template and its ReplicaSet's have one hash."""
    labelled = template()
    labelled["metadata"] = {"labels": {"app": "shop", "pod-template-hash": "abc"}, "creationTimestamp": None}
    theirs = template_of(replica_set(1, labelled))
    assert template_hash(theirs) == template_hash(template_of(deployment()))
    metadata = labelled["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["labels"] == {"app": "shop", "pod-template-hash": "abc"}, (
        "the object read stays as it was"
    )


@pytest.mark.parametrize(
    "change",
    [
        container(image="shop:2"),
        container(command=["run"]),
        container(args=["-v"]),
        container(readinessProbe={"httpGet": {"path": "/"}}),
        container(ports=[{"containerPort": 80}]),
    ],
)
def test_a_release_changes_the_code_hash_alone(change: JsonObject) -> None:
    """Images, commands, probes and ports are code."""
    assert code_hash(template(change)) != code_hash(template())
    assert config_hash(template(change)) == config_hash(template())


@pytest.mark.parametrize(
    ("changed", "volumes"),
    [
        (container(env=[{"name": "A", "value": "1"}]), []),
        (container(envFrom=[{"configMapRef": {"name": "c"}}]), []),
        (container(resources={"limits": {"memory": "1Mi"}}), []),
        (container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), []),
        (container(), [{"name": "v", "configMap": {"name": "c"}}]),
    ],
)
def test_configuration_changes_the_config_hash_alone(changed: JsonObject, volumes: list[Json]) -> None:
    """Environment, resources, volumes and references are configuration."""
    after = template(changed, volumes=volumes) if volumes else template(changed)
    assert config_hash(after) != config_hash(template())
    assert code_hash(after) == code_hash(template())


@pytest.mark.parametrize(
    "changed",
    [
        template(securityContext={"runAsUser": 0}),
        template(container(securityContext={"readOnlyRootFilesystem": True})),
        template(nodeSelector={"disk": "ssd"}),
        template(affinity={"nodeAffinity": {}}),
        template(tolerations=[{"key": "spot"}]),
        template(serviceAccountName="shop"),
        template(someFieldOfANewerServer=1),
        {**template(), "metadata": {"labels": {"app": "shop"}, "annotations": {"checksum/config": "1"}}},
    ],
)
def test_all_the_rest_of_a_template_is_configuration(changed: JsonObject) -> None:
    """Security, scheduling, identity and annotations: nothing in a template is outside both hashes."""
    assert config_hash(changed) != config_hash(template())
    assert code_hash(changed) == code_hash(template())


@pytest.mark.parametrize(
    "changed",
    [
        template(imagePullSecrets=[{"name": "registry"}]),
        template(container(imagePullPolicy="Always")),
        {**template(), "metadata": {"labels": {"app": "shop", "build": "43"}}},
    ],
)
def test_labels_and_how_images_are_pulled_come_with_a_release(changed: JsonObject) -> None:
    """A build label is all that a release under a moving tag may change."""
    assert code_hash(changed) != code_hash(template())
    assert config_hash(changed) == config_hash(template())


def test_known_noise_is_in_neither_hash() -> None:
    """Restarts, the agent's own marks and the hashes that controllers write change nothing that runs."""
    noisy: JsonObject = {
        **template(),
        "metadata": {
            "labels": {"app": "shop", "rollouts-pod-template-hash": "x", "controller-revision-hash": "y"},
            "annotations": {
                "kubectl.kubernetes.io/restartedAt": "2026-02-20T17:00:00Z",
                "self-healing-devops-agent/irreversible": "true",
            },
        },
    }
    assert (code_hash(noisy), config_hash(noisy)) == (code_hash(template()), config_hash(template()))
    assert template_fields(noisy) == template_fields(template())


def test_fields_are_named_without_their_values() -> None:
    """A changed field can be named in a diagnosis; no value leaves the connector."""
    found = template_fields(
        template(container(env=[{"name": "A", "value": "s3cr3t"}]), nodeSelector={"a": "b"})
    )
    assert [name for name, _ in found] == ["env of app", "image of app", "label app", "nodeSelector"]
    assert "s3cr3t" not in repr(found)


def test_init_containers_count() -> None:
    """A release that changes only an init container is a release."""
    assert code_hash(template(initContainers=[container("init", image="init:1")])) != code_hash(
        template(initContainers=[container("init", image="init:2")])
    )


def test_every_way_to_refer_to_a_config_map_is_found() -> None:
    """envFrom, single variables, volumes and projected volumes, init containers too."""
    found = template(
        container(
            envFrom=[{"configMapRef": {"name": "b"}}, {"secretRef": {"name": "secret"}}],
            env=[{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "x"}}}],
        ),
        initContainers=[container("init", envFrom=[{"configMapRef": {"name": "e"}}])],
        volumes=[
            {"name": "v", "configMap": {"name": "d"}},
            {
                "name": "w",
                "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]},
            },
            {"name": "x", "secret": {"secretName": "t"}},
        ],
    )
    assert config_map_names(found) == ("a", "b", "c", "d", "e")


# ------------------------------------------------------------------ targets


def managed(manager: str, at: str, fields: JsonObject, subresource: str | None = None) -> JsonObject:
    entry: JsonObject = {"manager": manager, "time": at, "fieldsV1": fields}
    return entry if subresource is None else {**entry, "subresource": subresource}


def test_the_last_change_of_the_spec_is_named() -> None:
    """Status and annotations are not a change of what is asked for; an autoscaler's scale is."""
    entries: list[Json] = [
        managed("kubectl", "2026-02-20T17:00:00Z", {"f:spec": {}}),
        managed("annotator", "2026-02-20T17:30:00Z", {"f:metadata": {}}),
        managed("kube-controller-manager", "2026-02-20T17:40:00Z", {"f:spec": {}}, "status"),
    ]
    assert target_state(REF, deployment(managedFields=entries)).changed_by == "kubectl"
    entries.append(managed("hpa", "2026-02-20T17:10:00Z", {"f:spec": {}}, "scale"))
    assert target_state(REF, deployment(managedFields=entries)).changed_by == "hpa"
    assert target_state(REF, deployment()).changed_by is None


def test_an_entry_without_a_time_is_the_last_to_have_written_what_it_holds() -> None:
    """Entries of subresource scale carry no time; a manager that writes a field takes it from the others."""
    scaled: JsonObject = {
        "manager": "kube-controller-manager",
        "subresource": "scale",
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }
    item = deployment(
        managedFields=[
            scaled,
            managed("the-agent", "2026-02-20T17:00:00Z", {"f:spec": {"f:template": {"f:spec": {}}}}),
            managed("kubectl", "2026-02-20T16:00:00Z", {"f:spec": {"f:strategy": {}}}),
        ]
    )

    def changed_by(name: ActionName) -> str | None:
        act = Action(name=name, risk=Risk.LOW, target=REF, parameters={}, expected_effect="", undo=None)
        return target_state(REF, item, act).changed_by

    assert changed_by(ActionName.SCALE) == "kube-controller-manager"
    assert changed_by(ActionName.ROLLBACK) == "the-agent"
    assert target_state(REF, item).changed_by == "the-agent"


def test_the_token_of_a_config_map_is_its_data() -> None:
    """Binary data counts where there is some."""
    plain = target_state(CONFIG_REF, config_map(data={"a": "1"})).token
    assert plain == target_state(CONFIG_REF, config_map(data={"a": "1"}, binaryData={})).token
    assert plain != target_state(CONFIG_REF, config_map(data={"a": "2"})).token
    assert plain != target_state(CONFIG_REF, config_map(data={"a": "1"}, binaryData={"b": "AA=="})).token


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "argocd"),
        ({"labels": {"argocd.argoproj.io/instance": "x"}}, "argocd"),
        (
            {
                "labels": {"app.kubernetes.io/instance": "x"},
                "annotations": {"argocd.argoproj.io/sync-wave": "1"},
            },
            "argocd",
        ),
        ({"labels": {"app.kubernetes.io/instance": "helm-release"}}, None),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "flux"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "x"}}, "flux"),
        ({}, None),
    ],
)
def test_gitops_owners_are_recognised(metadata: JsonObject, owner: str | None) -> None:
    """A Helm release alone is no owner that would undo a change."""
    assert managed_by(deployment(metadata=metadata)) == owner


@pytest.mark.parametrize(
    ("labels", "mark"),
    [
        ({f"kustomize.toolkit.fluxcd.io/{part}": part for part in ("name", "namespace")}, "Kustomization"),
        ({f"helm.toolkit.fluxcd.io/{part}": part for part in ("name", "namespace")}, "HelmRelease"),
        ({"kustomize.toolkit.fluxcd.io/name": "name", "app.kubernetes.io/instance": "other"}, None),
    ],
)
def test_the_object_that_deploys_a_workload_is_read_from_its_labels(
    labels: JsonObject, mark: str | None
) -> None:
    """Flux writes namespace and name; a label of something else does not stand in for them."""
    wanted = None if mark is None else f"{mark}:namespace/name"
    assert managed_as(deployment(metadata={"labels": labels})) == wanted


# ------------------------------------------------------------------ the view


@pytest.mark.parametrize(
    ("status", "complete"),
    [
        ({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, True),
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, False),
        ({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, False),
        ({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}, False),
        ({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, False),
        ({}, False),
    ],
)
def test_a_rollout_is_complete_as_kubectl_says(status: JsonObject, complete: bool) -> None:
    """The controller has seen the spec, and only its pods run, all of them available."""
    assert view(deployment(status=status)).rollout_complete is complete


def test_pods_of_every_revision_and_an_unseen_specification_are_read() -> None:
    """What is missing from a rollout can be named."""
    numbers: JsonObject = {"observedGeneration": 1, "replicas": 4, "updatedReplicas": 3}
    seen = view(deployment(status=numbers))
    assert (seen.total_replicas, seen.spec_observed) == (4, False)
    assert view(deployment(status={**numbers, "observedGeneration": 99})).spec_observed


def test_a_rollout_past_its_deadline_is_not_complete() -> None:
    """Old pods that still serve do not make it so."""
    conditions: list[Json] = [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    ]
    counts: JsonObject = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    seen = view(deployment(status={"observedGeneration": 3, **counts, "conditions": conditions}))
    assert seen.progress_deadline_exceeded
    assert not seen.rollout_complete


def test_revisions_are_ordered_by_number_not_by_age() -> None:
    """A rollback gives an old ReplicaSet the newest number; ten comes after nine."""
    seen = view(
        deployment(annotations={"deployment.kubernetes.io/revision": "10"}),
        replica_sets=(
            replica_set(9),
            replica_set(1, annotations={"deployment.kubernetes.io/revision": "10"}),
            replica_set(2, annotations={}),
        ),
    )
    assert [revision.number for revision in seen.revisions] == [10, 9]
    assert seen.current_revision == 10


def test_irreversible_is_read_from_deployment_replica_set_and_template() -> None:
    """A mark on the Deployment is about the revision it asks for now, not about older ones."""
    mark: dict[str, Json] = {"self-healing-devops-agent/irreversible": "true"}
    number = "deployment.kubernetes.io/revision"
    marked_template = template()
    marked_template["metadata"] = {"labels": {"app": "shop"}, "annotations": mark}
    seen = view(
        deployment(annotations={**mark, number: "4"}),
        replica_sets=(
            replica_set(4),
            replica_set(3),
            replica_set(2, marked_template),
            replica_set(1, annotations={**mark, number: "1"}),
        ),
    )
    assert [revision.irreversible for revision in seen.revisions] == [True, False, True, True]


def test_the_reason_that_matters_is_shown() -> None:
    """A sidecar that is merely starting does not hide the container that crashes."""
    (seen,) = view(
        replica_sets=(replica_set(1),),
        pods=(
            pod(
                {"restartCount": 1, "state": {"waiting": {"reason": "ContainerCreating"}}},
                {
                    "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": terminated("OOMKilled", "2026-02-20T17:05:00Z"),
                },
                init=({"restartCount": 2, "state": terminated("Completed", "2026-02-20T17:09:00Z")},),
            ),
        ),
    ).pods
    assert seen.waiting_reason == "CrashLoopBackOff"
    assert seen.last_termination_reason == "OOMKilled"
    assert seen.restarts == 7
    assert seen.phase == "Unknown"
    assert not seen.ready


def test_the_latest_end_is_the_reason_shown() -> None:
    """Of several ends the newest counts."""
    (seen,) = view(
        pods=(
            pod(
                {"lastState": terminated("OOMKilled", "2026-02-20T17:05:00Z")},
                {"lastState": terminated("Error", "2026-02-20T17:06:00Z")},
            ),
        )
    ).pods
    assert seen.last_termination_reason == "Error"
    assert seen.template_hash is None


def test_what_ran_is_named_by_digest() -> None:
    """Of each container that the node reported, in the forms of all runtimes; an unpulled image has none."""
    one, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    statuses: list[JsonObject] = [
        {"name": "web", "imageID": f"docker-pullable://reg/shop@{one}"},
        {"name": "proxy", "imageID": other},
        {"name": "new", "imageID": ""},
    ]
    (shown,) = view(pods=(pod(*statuses),)).pods
    assert shown.image_digests == (f"proxy={other}", f"web={one}")


def event(uid: str, message: str, at: str) -> JsonObject:
    return {"involvedObject": {"uid": uid}, "reason": "BackOff", "message": message, "lastTimestamp": at}


def test_warnings_are_ours_distinct_newest_first_and_bounded() -> None:
    """Other workloads' events, repeats and endless texts stay out."""
    repeated = [event("p-1", "again", f"2026-02-20T17:00:{second:02}Z") for second in range(30)]
    many = [event("d-1", f"text {number} " + "x" * 900, "2026-02-20T16:00:00Z") for number in range(40)]
    other = [event("somebody-else", "not ours", "2026-02-20T17:59:00Z")]
    seen = view(pods=(pod(),), events=(*many, *repeated, *other)).warnings
    assert seen[0] == "BackOff: again"
    assert len(seen) == 20
    assert all(len(line) <= 300 and "not ours" not in line for line in seen)
    assert sum("again" in line for line in seen) == 1


def test_what_could_not_be_read_is_reported() -> None:
    """Missing events are not the absence of warnings."""
    assert view(unread=("forbidden: cannot list events",)).warnings == ("forbidden: cannot list events",)


def ended(name: str, reason: str, code: int, *, ready: bool = False, **state: Json) -> JsonObject:
    end: JsonObject = {"reason": reason, "exitCode": code, "finishedAt": "2026-11-29T10:00:00Z"}
    last: JsonObject = {"terminated": end}
    return {"name": name, "ready": ready, "restartCount": 4, "state": dict(state), "lastState": last}


BACK_OFF: JsonObject = {"reason": "CrashLoopBackOff"}


@pytest.mark.parametrize(
    ("statuses", "init", "reason"),
    [
        ((ended("app", "OOMKilled", 137, waiting=BACK_OFF),), (), "OOMKilled"),
        ((ended("app", "OOMKilled", 143, running={}),), (), "Error"),
        ((ended("app", "OOMKilled", 0, running={}),), (), None),
        (
            (ended("app", "Error", 1, waiting=BACK_OFF),),
            (ended("init", "OOMKilled", 0, ready=True),),
            "Error",
        ),
        (
            (ended("app", "Error", 1, waiting=BACK_OFF), ended("sidecar", "OOMKilled", 137, ready=True)),
            (),
            "Error",
        ),
        (
            (ended("app", "Error", 1, running={}), ended("sidecar", "OOMKilled", 137, waiting=BACK_OFF)),
            (),
            "OOMKilled",
        ),
    ],
)
def test_only_the_kernels_kill_of_the_failing_container_is_want_of_memory(
    statuses: tuple[JsonObject, ...], init: tuple[JsonObject, ...], reason: str | None
) -> None:
    """Runtimes say OOMKilled of drained containers and of init containers that ended well, too."""
    [seen] = view(replica_sets=(replica_set(1),), pods=(pod(*statuses, init=init),)).pods
    assert seen.last_termination_reason == reason


def test_the_annotations_that_set_objectives_are_in_the_view() -> None:
    """As they are written, and no other ones."""
    marks: dict[str, Json] = {"self-healing-devops-agent/slo-max-error-rate": "0.01", "other/slo-x": "1"}
    found = view(deployment(metadata={"annotations": marks}))
    assert found.slo_annotations == (("self-healing-devops-agent/slo-max-error-rate", "0.01"),)


def test_a_probe_that_grants_an_age_is_read() -> None:
    """The API server takes any positive numbers: their product must not stop the watcher."""
    endless: JsonObject = {"periodSeconds": 2**31 - 1, "failureThreshold": 2**31 - 1}
    found = template(container(startupProbe=endless, readinessProbe=endless))
    assert longer_than_usual(view(deployment(spec={"template": found}))) > timedelta(days=300)


def test_an_annotation_that_a_container_reads_counts_as_configuration() -> None:
    """By a variable or a file of the downward API; any other annotation without a domain is a mark."""
    path = "metadata.annotations['feature-set']"
    variable: JsonObject = {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    files: JsonObject = {"items": [{"path": "all", "fieldRef": {"fieldPath": "metadata.annotations"}}]}
    read = template(container(env=[variable]))
    mounted = template(volumes=[{"name": "pod", "downwardAPI": files}])
    unread = template()
    for one in (read, mounted, unread):
        one["metadata"] = {"annotations": {"feature-set": "a"}}
    name = "downward API of annotation feature-set"
    assert [name in dict(template_fields(one)) for one in (read, mounted, unread)] == [True, True, False]
