"""The Kustomize manifests: built by Kustomize, compared with the chart, and offered to a real API server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.models import ActionName
from app.config import Settings
from app.connectors.kubernetes.access import needed_rights, supplementary_rights
from scripts.chart import ENABLED_BY_NAME
from scripts.kustomize import KUSTOMIZE, generated
from testbed.kubeapi import Api
from testbed.kustomize import kustomize
from tests.contract.manifests import container_of, created, of_kind, pod_of, restrict

pytestmark = pytest.mark.real

OVERLAYS = ("cluster", "distributed", "namespace")
Right = tuple[str, str, str]


def built(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    return [one for one in yaml.safe_load_all(kustomize(folder)) if one]


def elsewhere(folder: Path, overlay: str, namespace: str, watched: str) -> Path:
    """The overlay for other namespaces, changed where its text says so."""
    there = folder / "kustomize"
    shutil.copytree(KUSTOMIZE, there, dirs_exist_ok=True)
    for path in (there / "overlays" / overlay).rglob("kustomization.yaml"):
        text = path.read_text().replace("namespace: healing", f"namespace: {namespace}")
        path.write_text(text.replace("payments", watched))
    return there / "overlays" / overlay


def rights(*roles: dict[str, Any]) -> set[Right]:
    """What roles grant: verb, group, resource."""
    return {
        (verb, group, resource)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def needed(*actions: ActionName) -> set[Right]:
    """What reading and these actions need."""
    found = needed_rights(Settings(_env_file=None, enabled_actions=frozenset(actions)))
    return {(one.verb, one.group, one.resource) for one in (*found, *supplementary_rights())}


def test_the_manifests_are_those_of_the_chart() -> None:
    """`python -m scripts.kustomize` writes them; nothing but the overlays is written by hand."""
    files = generated()
    assert {path.name for path, content in files.items() if path.read_text() != content} == set()
    assert {path for path in KUSTOMIZE.rglob("*.yaml") if "overlays" not in path.parts} == files.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_the_api_server_accepts_every_object(
    overlay: str, api: Api, namespace: str, tmp_path: Path
) -> None:
    """Under the Pod Security Standard `restricted`, in any namespace, with every reference to it."""
    await restrict(api, namespace)
    objects = built(elsewhere(tmp_path, overlay, namespace, namespace))
    assert "healing" not in json.dumps([one for one in objects if one["kind"] != "Role"]).split('"')
    for one in of_kind(objects, "ServiceAccount"):
        await created(api, one, namespace)
    for one in objects:
        if one["kind"] != "ServiceAccount":
            await created(api, one, namespace, dry_run=True)
    for deployment in of_kind(objects, "Deployment"):
        await created(api, pod_of(deployment), namespace, dry_run=True)
    (policy,) = of_kind(objects, "ValidatingAdmissionPolicy")
    account = f"'system:serviceaccount:{namespace}:self-healing-devops-agent'"
    assert policy["spec"]["matchConditions"][0]["expression"].endswith(account)
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        assert binding["subjects"][0]["namespace"] == namespace


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_grants_what_its_enabled_actions_need(overlay: str) -> None:
    """No right more; nothing runs without identity, and as a dry run."""
    objects = built(KUSTOMIZE / "overlays" / overlay)
    (settings,) = of_kind(objects, "ConfigMap")
    enabled = [ActionName(name) for name in settings["data"]["ENABLED_ACTIONS"].split(",")]
    assert rights(*of_kind(objects, "Role", "ClusterRole")) == needed(*enabled)
    assert bool(of_kind(objects, "ClusterRole")) == (overlay != "namespace")
    assert settings["data"]["REQUIRE_IDENTITY"] == settings["data"]["DRY_RUN"] == "true"
    for deployment in of_kind(objects, "Deployment"):
        sources = [one.get("configMapRef", {}).get("name") for one in container_of(deployment)["envFrom"]]
        assert settings["metadata"]["name"] in sources
        assert {"secretRef": {"name": "self-healing-devops-agent-admin"}} in container_of(deployment)[
            "envFrom"
        ]


@pytest.mark.parametrize("overlay", ["cluster", "namespace"])
def test_each_action_adds_its_rights_and_no_other(overlay: str, tmp_path: Path) -> None:
    """One component for each action; all of them, none, and the one for nodes in both scopes."""
    there = elsewhere(tmp_path, overlay, "healing", "payments")
    body = yaml.safe_load((there / "kustomization.yaml").read_text())
    for actions in ((), sorted(ENABLED_BY_NAME), [ActionName.CORDON], [ActionName.RESTART]):
        body["components"] = [f"../../actions/{name}" for name in actions if _component(name).exists()]
        (there / "kustomization.yaml").write_text(yaml.safe_dump(body))
        granted = rights(*of_kind(built(there), "Role", "ClusterRole"))
        assert granted == needed(*actions), actions
        nodes = of_kind(built(there), "ClusterRole")
        if overlay == "namespace":  # a Role grants nothing on nodes, nor on the pods of all namespaces
            wanted = {one for one in needed(*actions) if one[2] == "nodes"}
            if ActionName.DRAIN_NODE in actions:
                wanted |= {("list", "", "pods"), ("create", "", "pods/eviction"), ("get", "", "namespaces")}
            assert rights(*nodes) == wanted


def test_each_component_holds_the_rights_of_its_action() -> None:
    """Read from the files, for every action."""
    read = needed()
    for name in ENABLED_BY_NAME:
        added = set()
        if _component(name).exists():
            (patch,) = yaml.safe_load(_component(name).read_text())["patches"]
            added = rights({"rules": [one["value"] for one in yaml.safe_load(patch["patch"])]})
        assert added == needed(name) - read, name


def _component(name: str) -> Path:
    return KUSTOMIZE / "actions" / name / "kustomization.yaml"


def test_the_right_of_a_setting_is_a_component(tmp_path: Path) -> None:
    """Secrets and logs are readable only with it."""
    there = elsewhere(tmp_path, "cluster", "healing", "payments")
    body = yaml.safe_load((there / "kustomization.yaml").read_text())
    plain = rights(*of_kind(built(there), "ClusterRole"))
    body["components"] += ["../../settings/helm_releases", "../../settings/log_evidence"]
    (there / "kustomization.yaml").write_text(yaml.safe_dump(body))
    more = rights(*of_kind(built(there), "ClusterRole")) - plain
    assert more == {("list", "", "secrets"), ("get", "", "pods/log")}


def test_the_rights_on_flux_hold_in_all_namespaces(tmp_path: Path) -> None:
    """They are a ClusterRole of their own beside the role of either scope."""
    there = elsewhere(tmp_path, "namespace", "healing", "payments")
    body = yaml.safe_load((there / "kustomization.yaml").read_text())
    body["components"] = [*body.get("components", []), "../../settings/flux_enabled"]
    (there / "kustomization.yaml").write_text(yaml.safe_dump(body))
    more = rights(*of_kind(built(there), "ClusterRole"))
    assert {(verb, resource) for verb, _, resource in more} == {
        *((verb, kind) for verb in ("get", "list") for kind in ("kustomizations", "helmreleases")),
        *((verb, "gitrepositories") for verb in ("get", "list", "patch")),
    }
