"""Writes `deploy/kustomize` from the Helm chart, so that both install the same objects with the same rights.

Run as `python -m scripts.kustomize` after a change of the chart; a test fails while they differ. It needs
Helm, built from its Go module the first time. `deploy/kustomize/overlays` is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.chart import CHART, ENABLED_BY_NAME, ROOT
from testbed.helm import helm

KUSTOMIZE = ROOT / "deploy" / "kustomize"
NAME = "self-healing-devops-agent"
CLUSTERS_SECRET = f"{NAME}-clusters"
WATCHED = "watched"
"""The namespace that `scope/namespace` names; each overlay replaces it."""

_GENERATED = "# Written by `python -m scripts.kustomize` from the Helm chart.\n"
_HELM_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")
_SECRETS = ("--set", f"adminToken.existingSecret={NAME}-admin")
_SINGLE = (*_SECRETS, "--set-json", "enabledActions=[]")
_DISTRIBUTED = (*_SINGLE, "--set", f"mode=distributed,database.existingSecret={NAME}-database")

Object = dict[str, Any]


def rendered(*options: str) -> list[Object]:
    """The objects of the chart with these values, without what only Helm reads."""
    text = helm("template", NAME, CHART, "--namespace", "healing", *options)
    return [_without_helm(one) for one in yaml.safe_load_all(text) if one]


def generated() -> dict[Path, str]:
    """Each generated file and its content."""
    single, distributed = rendered(*_SINGLE), rendered(*_DISTRIBUTED)
    namespaced = rendered(*_SINGLE, "--set", f"environmentNamespaces.{WATCHED}={WATCHED}")
    monitored = rendered(*_SINGLE, "--set", "monitoring.serviceMonitor=true,monitoring.rules=true")
    (settings,) = _of(single, "ConfigMap")
    values = {**settings["data"], "ENABLED_ACTIONS": "notify"}
    database = values.pop("DATABASE_URL")
    files = {
        **_folder("base", _of(single, "ServiceAccount", "NetworkPolicy"), settings=values),
        **_folder("mode/single", _of(single, *_RUNNING), settings={"DATABASE_URL": database}, component=True),
        **_folder("mode/distributed", _of(distributed, *_RUNNING), component=True),
        **_folder("scope/cluster", _of(single, "ClusterRole", "ClusterRoleBinding")),
        **_folder("scope/namespace", _of(namespaced, "Role", "RoleBinding")),
        **_folder("dry-run-pods", _of(single, *_POLICY)),
        **_folder("clusters", (), component=True, patches=[_kubeconfigs()]),
        **_folder("monitoring", _of(monitored, "PodMonitor", "PrometheusRule"), component=True),
    }
    rights = json.loads((CHART / "files" / "rights.json").read_text(encoding="utf-8"))
    for name in sorted(ENABLED_BY_NAME):
        needed = [one for one in rights["actions"][name] if one not in rights["read"]]
        if needed:  # a notification needs none
            files |= _granting(f"actions/{name}", needed, _nodes(name))
    for setting, needed in rights["settings"].items():
        files |= _granting(f"settings/{setting.lower()}", needed)
    for setting in rights["everywhere"]:
        files |= _folder(f"settings/{setting.lower()}", _everywhere(setting), component=True)
    return {KUSTOMIZE / path: content for path, content in files.items()}


_POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
_RUNNING = ("Service", "Deployment", "PersistentVolumeClaim", "PodDisruptionBudget")


def _of(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def _nodes(action: str) -> list[Object]:
    """Nodes belong to no namespace: what an action on them needs beside a Role."""
    objects = rendered(
        *_SECRETS,
        *("--set-json", f"enabledActions={json.dumps([action])}"),
        *("--set", f"environmentNamespaces.{WATCHED}={WATCHED}"),
    )
    found = _of(objects, "ClusterRole", "ClusterRoleBinding")
    for one in found:  # two actions on nodes are two objects
        one["metadata"]["name"] += f"-{action}"
        if "roleRef" in one:
            one["roleRef"]["name"] += f"-{action}"
    return found


def _kubeconfigs() -> Object:
    """What mounts the kubeconfigs where the chart does; here one Secret holds them all, one key for each."""
    cluster = {
        "kubeconfig": {"secret": CLUSTERS_SECRET, "key": WATCHED},
        "environment_namespaces": {WATCHED: WATCHED},
    }
    options = ("--set", "ownCluster=false", "--set-json", f"clusters={json.dumps({WATCHED: cluster})}")
    (deployment,) = _of(rendered(*_SINGLE, *options), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "clusters")
    (volume,) = (one for one in pod["volumes"] if one["name"] == "clusters")
    secret = {"secretName": CLUSTERS_SECRET, "defaultMode": volume["projected"]["defaultMode"]}
    patch = [
        {
            "op": "add",
            "path": "/spec/template/spec/volumes/-",
            "value": {"name": "clusters", "secret": secret},
        },
        {"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts/-", "value": mount},
    ]
    return {"target": {"kind": "Deployment", "name": f"{NAME}.*"}, "patch": _lines(patch)}


def _everywhere(setting: str) -> list[Object]:
    """What a setting needs in all namespaces, beside the role of either scope."""
    plain, asked = (rendered(*_SINGLE, *more) for more in ((), ("--set-string", f"settings.{setting}=true")))
    return [one for one in _of(asked, "ClusterRole", "ClusterRoleBinding") if one not in plain]


def _folder(
    path: str,
    objects: Sequence[Object],
    *,
    settings: Mapping[str, str] | None = None,
    component: bool = False,
    **more: Any,
) -> dict[str, str]:
    """The kustomization of one folder and the objects beside it."""
    body: Object = _kind(component=component) | more
    files = {}
    if objects:
        body["resources"] = ["objects.yaml"]
        files[f"{path}/objects.yaml"] = _GENERATED + _dumped(objects)
    if settings:
        made = {"name": NAME, "literals": [f"{k}={v}" for k, v in settings.items()]}
        body["configMapGenerator"] = [made | ({"behavior": "merge"} if component else {})]
    return {**files, f"{path}/kustomization.yaml": _GENERATED + _dumped([body])}


def _granting(
    path: str, needed: Sequence[Mapping[str, str]], objects: Sequence[Object] = ()
) -> dict[str, str]:
    """A component that adds rights to the role of either scope."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for one in needed:
        verbs.setdefault((one["group"], one["resource"]), []).append(one["verb"])
    patch = [
        {
            "op": "add",
            "path": "/rules/-",
            "value": {"apiGroups": [group], "resources": [resource], "verbs": which},
        }
        for (group, resource), which in sorted(verbs.items())
    ]
    target = {"kind": "(Cluster)?Role", "name": NAME}
    patches = [{"target": target, "patch": _lines(patch)}]
    return _folder(path, objects, component=True, patches=patches)


def _lines(patch: Sequence[object]) -> str:
    """A JSON patch with one operation on each line."""
    return "[\n " + ",\n ".join(map(json.dumps, patch)) + "\n]\n"


def _kind(*, component: bool) -> Object:
    if component:
        return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def _without_helm(one: Object) -> Object:
    """Without the labels and annotations of Helm; an overlay sets the namespace."""
    one["metadata"].pop("namespace", None)
    template = one.get("spec", {}).get("template", {})
    for metadata in (one["metadata"], template.get("metadata", {})):
        for label in _HELM_LABELS:
            metadata.get("labels", {}).pop(label, None)
        annotations = metadata.get("annotations", {})
        for name in ("helm.sh/resource-policy", "checksum/settings"):
            annotations.pop(name, None)
        if not annotations:
            metadata.pop("annotations", None)
    return one


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dumped(objects: Sequence[Object]) -> str:
    return str(yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=110))


if __name__ == "__main__":
    for file, content in generated().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
