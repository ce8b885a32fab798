"""Several clusters in the Helm chart and the manifests: kubeconfigs from Secrets, rights in each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.clock import SystemClock
from app.config import load_settings
from app.connectors.clusters.connect import connect_one
from app.connectors.kubernetes.access import asked_of, clock_and_rights, needed_rights
from app.errors import ConfigurationError
from app.terms.clusters import of_cluster
from scripts.kustomize import CLUSTERS_SECRET, KUSTOMIZE
from testbed.kubeapi import Api
from testbed.kustomize import kustomize
from testbed.world import TestBed
from tests.contract.manifests import container_of, created, of_kind, rendered
from tests.contract.service_account import kubeconfig_of

pytestmark = pytest.mark.real

MOUNTED = "/run/secrets/clusters"
CLUSTERS: dict[str, dict[str, object]] = {
    "east": {
        "kubeconfig": {"secret": "heal-clusters", "key": "east.yaml"},
        "environment_namespaces": {"prod-east": "payments"},
    },
    "west": {
        "kubeconfig": {"secret": "heal-west", "key": "kubeconfig"},
        "context": "west",
        "environment_namespaces": {"prod-west": "payments"},
        "alert_labels": {"region": "us-west"},
        "argocd_destination": "https://west.example.com",
    },
}
OPTIONS = ("--set-json", f"clusters={json.dumps(CLUSTERS)}")
OWN = (*OPTIONS, "--set", "environmentNamespaces.prod=payments")
MODES = {
    "single": (),
    "distributed": ("--set", "mode=distributed", "--set", "database.existingSecret=heal-database"),
}


def volume_of(deployment: dict[str, Any], name: str) -> dict[str, Any]:
    """The one volume of that name."""
    (found,) = (one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == name)
    return dict(found)


def mount_of(deployment: dict[str, Any], name: str) -> dict[str, Any]:
    """How the container mounts it."""
    (found,) = (one for one in container_of(deployment)["volumeMounts"] if one["name"] == name)
    return dict(found)


@pytest.mark.parametrize("mode", MODES)
def test_every_pod_mounts_each_kubeconfig_read_only_where_clusters_names_it(mode: str) -> None:
    """Only the named key of each Secret, for the group of the process; no Secret is copied into a value."""
    objects = rendered(*MODES[mode], *OWN)
    settings, *_ = of_kind(objects, "ConfigMap")
    named = {name: one["kubeconfig"] for name, one in json.loads(settings["data"]["CLUSTERS"]).items()}
    assert named == {name: f"{MOUNTED}/{name}" for name in CLUSTERS}
    deployments = of_kind(objects, "Deployment")
    assert len(deployments) == (1 if mode == "single" else 3)
    for deployment in deployments:
        assert mount_of(deployment, "clusters") == {
            "name": "clusters",
            "mountPath": MOUNTED,
            "readOnly": True,
        }
        assert volume_of(deployment, "clusters")["projected"] == {
            "defaultMode": 0o440,
            "sources": [
                {"secret": {"name": "heal-clusters", "items": [{"key": "east.yaml", "path": "east"}]}},
                {"secret": {"name": "heal-west", "items": [{"key": "kubeconfig", "path": "west"}]}},
            ],
        }


def test_without_further_clusters_nothing_is_mounted() -> None:
    """A release that does not name any is as before."""
    (deployment,) = of_kind(rendered(), "Deployment")
    assert "clusters" not in {one["name"] for one in container_of(deployment)["volumeMounts"]}
    (settings,) = of_kind(rendered(), "ConfigMap")
    assert settings["data"]["KUBE_IN_CLUSTER"] == "true"
    assert "CLUSTERS" not in settings["data"]


def test_an_agent_that_watches_other_clusters_alone_has_no_identity_in_its_own() -> None:
    """No role and no token of its service account."""
    objects = rendered(*OPTIONS, "--set", "ownCluster=false")
    assert not of_kind(objects, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    assert not of_kind(objects, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    (settings,) = of_kind(objects, "ConfigMap")
    assert settings["data"]["KUBE_IN_CLUSTER"] == "false"


def test_a_changed_cluster_restarts_the_pods() -> None:
    """The agent reads CLUSTERS and kubeconfigs at its start."""

    def mark(*options: str) -> str:
        (deployment,) = of_kind(rendered(*OWN, *options), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])

    assert mark() == mark()
    assert mark("--set", "clusters.east.kubeconfig.key=other") != mark()


async def test_the_role_of_the_chart_in_another_cluster_is_enough_for_it(
    api: Api, testbed_world: TestBed, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/install.md says: the role there, a token of its account, and the values here."""
    release = f"heal-{namespace}"
    there = ("--set", f"environmentNamespaces.prod-east={namespace}", "--set", "rbac.tryPods=true")
    rights = rendered(*there, "--show-only", "templates/rbac.yaml", namespace=namespace, release=release)
    (account,) = of_kind(rights, "ServiceAccount")
    assert {one["kind"] for one in rights} == {
        *("ServiceAccount", "Role", "RoleBinding"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    }
    for one in rights:
        await created(api, one, namespace, dry_run=one["kind"].startswith("Validating"))
    name = account["metadata"]["name"]
    kubeconfig = await kubeconfig_of(name, namespace, api, testbed_world, tmp_path, context="east")

    clusters = {
        "east": {**CLUSTERS["east"], "context": "east", "environment_namespaces": {"prod-east": namespace}}
    }
    here = rendered("--set", "ownCluster=false", "--set-json", f"clusters={json.dumps(clusters)}")
    (environment,) = of_kind(here, "ConfigMap")
    for setting, value in environment["data"].items():
        monkeypatch.setenv(setting, value.replace(f"{MOUNTED}/east", str(kubeconfig)))
    settings = load_settings()
    assert of_cluster(settings, "east").kubeconfig == kubeconfig
    cluster = connect_one(settings, "east", SystemClock())
    assert cluster is not None
    try:
        assert await cluster.reader.services() == ()
    finally:
        await cluster.close()
    asked = asked_of(settings, "east")
    answer = await clock_and_rights(asked, needed_rights(asked), SystemClock())
    assert [str(right) for right, allowed in answer.rights if not allowed] == []


def test_the_component_of_kustomize_mounts_a_secret_where_the_chart_does(tmp_path: Path) -> None:
    """One Secret with a key for each cluster, in each Deployment; the overlay names the clusters."""
    there = tmp_path / "kustomize"
    shutil.copytree(KUSTOMIZE, there)
    for overlay, deployments in (("namespace", 1), ("distributed", 3)):
        path = there / "overlays" / overlay / "agent" / "kustomization.yaml"
        body = yaml.safe_load(path.read_text())
        body["components"].append("../../../clusters")
        clusters = {"east": {"kubeconfig": f"{MOUNTED}/east", "environment_namespaces": {"prod-east": "p"}}}
        body["configMapGenerator"][0]["literals"].append(f"CLUSTERS={json.dumps(clusters)}")
        path.write_text(yaml.safe_dump(body))
        objects = [one for one in yaml.safe_load_all(kustomize(path.parent.parent)) if one]
        (settings,) = of_kind(objects, "ConfigMap")
        assert json.loads(settings["data"]["CLUSTERS"]) == clusters
        found = of_kind(objects, "Deployment")
        assert len(found) == deployments
        (charted,) = of_kind(rendered(*OWN), "Deployment")
        for deployment in found:
            assert mount_of(deployment, "clusters") == mount_of(charted, "clusters")
            secret = {"secretName": CLUSTERS_SECRET, "defaultMode": 0o440}
            assert volume_of(deployment, "clusters")["secret"] == secret


def test_the_agent_names_the_kubeconfig_that_a_component_in_the_wrong_place_does_not_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kustomize ignores a patch without a target: the start of the agent makes that visible."""
    there = tmp_path / "kustomize"
    shutil.copytree(KUSTOMIZE, there)
    path = there / "overlays" / "namespace" / "agent" / "kustomization.yaml"
    body = yaml.safe_load(path.read_text())
    body["components"].insert(0, "../../../clusters")
    clusters = {"east": {"kubeconfig": f"{MOUNTED}/east", "environment_namespaces": {"prod-east": "p"}}}
    body["configMapGenerator"][0]["literals"].append(f"CLUSTERS={json.dumps(clusters)}")
    path.write_text(yaml.safe_dump(body))
    objects = [one for one in yaml.safe_load_all(kustomize(path.parent.parent)) if one]
    (deployment,) = of_kind(objects, "Deployment")
    assert "clusters" not in {one["name"] for one in container_of(deployment)["volumeMounts"]}
    (settings,) = of_kind(objects, "ConfigMap")
    for setting, value in settings["data"].items():
        monkeypatch.setenv(setting, value)
    with pytest.raises(ConfigurationError) as caught:
        connect_one(load_settings(), "east", SystemClock())
    said = str(caught.value)
    assert said == f"CLUSTERS.east: kubeconfig {MOUNTED}/east does not exist"
    assert said in (KUSTOMIZE.parents[1] / "docs" / "install.md").read_text()
