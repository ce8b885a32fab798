"""Objects that an installation brings, and offering them to a real API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from scripts.chart import CHART
from testbed.helm import helm
from testbed.kubeapi import Api

_CORE, _RBAC = "api/v1", "apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "apis/admissionregistration.k8s.io/v1"
RESOURCES = {
    "ServiceAccount": _CORE + "/namespaces/{}/serviceaccounts",
    "ConfigMap": _CORE + "/namespaces/{}/configmaps",
    "Secret": _CORE + "/namespaces/{}/secrets",
    "Service": _CORE + "/namespaces/{}/services",
    "Pod": _CORE + "/namespaces/{}/pods",
    "PersistentVolumeClaim": _CORE + "/namespaces/{}/persistentvolumeclaims",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": _RBAC + "/namespaces/{}/roles",
    "RoleBinding": _RBAC + "/namespaces/{}/rolebindings",
    "ClusterRole": _RBAC + "/clusterroles",
    "ClusterRoleBinding": _RBAC + "/clusterrolebindings",
    "ValidatingAdmissionPolicy": _ADMISSION + "/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": _ADMISSION + "/validatingadmissionpolicybindings",
}


def rendered(*options: str, namespace: str = "healing", release: str = "heal") -> list[dict[str, Any]]:
    """The objects of a release of the chart, in order."""
    text = helm("template", release, CHART, "--namespace", namespace, *options)
    return [one for one in yaml.safe_load_all(text) if one]


async def created(api: Api, one: dict[str, Any], namespace: str, *, dry_run: bool = False) -> None:
    """Create an object; unknown fields, refusals and warnings fail."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    answer = await api.request("POST", "/" + RESOURCES[one["kind"]].format(namespace) + query, one)
    assert answer.status_code == 201, (one["kind"], answer.text)
    assert "warning" not in answer.headers, (one["kind"], answer.headers["warning"])


async def restrict(api: Api, namespace: str) -> None:
    """From now on the namespace admits only what the Pod Security Standard `restricted` allows."""
    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    (await api.request("PATCH", f"/api/v1/namespaces/{namespace}", level)).raise_for_status()


def of_kind(objects: Sequence[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds, in order."""
    return [one for one in objects if one["kind"] in kinds]


def container_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """The one container of its pods."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """A pod as the Deployment would make it."""
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": deployment["metadata"]["name"]}
    return {**template, "apiVersion": "v1", "kind": "Pod", "metadata": metadata}
