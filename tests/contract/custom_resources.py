"""Custom resources on the bed: their kinds, and what the controller of Argo Rollouts writes."""

from __future__ import annotations

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apiextensions_v1 import (
    CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion,
    CustomResourceSubresources,
    CustomResourceValidation,
    JSONSchemaProps,
)
from lightkube.models.apps_v1 import ReplicaSetSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta, OwnerReference
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.types import PatchType

from app.agent.ids import JsonObject
from app.agent.models import ActionName
from tests.contract.kubernetes_harness import KubernetesHarness

UPDATING: JsonObject = {"currentPodHash": "6c5f", "stableRS": "77aa"}
WAITING: JsonObject = {
    "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}]
}
ROLLOUT_STATUS: dict[ActionName, JsonObject] = {
    ActionName.ABORT_ROLLOUT: UPDATING,
    ActionName.RETRY_ROLLOUT: {**UPDATING, "abort": True},
    ActionName.PROMOTE_ROLLOUT: {**UPDATING, **WAITING, "currentStepIndex": 1},
    ActionName.PAUSE_ROLLOUT: UPDATING,
}
"""What the status of a Rollout holds where each action on one applies."""


def roll_out(cluster: KubernetesHarness, more: JsonObject | None = None) -> None:
    """What the controller of Rollouts makes: a ReplicaSet with the Deployment's template, and a status."""
    deployment = cluster.client.get(Deployment, "shop", namespace=cluster.namespace)
    assert deployment.spec is not None
    rollout = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    annotations = {"rollout.argoproj.io/revision": "4"}
    body = {
        "metadata": {
            "name": "shop-rollout",
            "namespace": cluster.namespace,
            "annotations": annotations,
        },
        "spec": {
            "replicas": 2,
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        },
    }
    made = cluster.client.create(rollout.from_dict(body))
    set_status(cluster, {**counts, "observedGeneration": "1", **(more or {})})
    owner = OwnerReference(
        apiVersion="argoproj.io/v1alpha1",
        kind="Rollout",
        name="shop-rollout",
        uid=made.metadata.uid,
        controller=True,
    )
    marked = {"app": "shop", "rollouts-pod-template-hash": "6c5f"}
    template = deployment.spec.template
    template.metadata = ObjectMeta(labels=marked)
    replica_set = ReplicaSet(
        metadata=ObjectMeta(
            name="shop-rollout-6c5f",
            namespace=cluster.namespace,
            labels=marked,
            annotations=annotations,
            ownerReferences=[owner],
        ),
        spec=ReplicaSetSpec(replicas=2, selector=LabelSelector(matchLabels=marked), template=template),
    )
    cluster.client.create(replica_set)


def set_status(cluster: KubernetesHarness, more: JsonObject) -> None:
    """A write of the controller of Rollouts."""
    rollout = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")
    cluster.client.patch(
        rollout.Status,
        "shop-rollout",
        {"status": more},
        namespace=cluster.namespace,
        patch_type=PatchType.MERGE,
    )


def define_rollouts(client: Client) -> None:
    """The kind of Argo Rollouts."""
    define_kind(client, "argoproj.io", "v1alpha1", "Rollout", "rollouts")


def define_kind(client: Client, group: str, version: str, kind: str, plural: str) -> None:
    """A kind of objects in namespaces, with any fields and a status; established on return."""
    names = CustomResourceDefinitionNames(kind=kind, plural=plural, singular=kind.lower())
    whole = JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)
    schema = CustomResourceValidation(openAPIV3Schema=whole)
    served = CustomResourceDefinitionVersion(
        name=version,
        served=True,
        storage=True,
        schema=schema,
        subresources=CustomResourceSubresources(status={}),
    )
    definition = CustomResourceDefinition(
        metadata=ObjectMeta(name=f"{plural}.{group}"),
        spec=CustomResourceDefinitionSpec(group=group, names=names, scope="Namespaced", versions=[served]),
    )
    try:
        client.create(definition)
    except ApiError as error:
        if error.status.code != 409:  # another test of this control plane defined it
            raise
    client.wait(CustomResourceDefinition, f"{plural}.{group}", for_conditions=["Established"])
