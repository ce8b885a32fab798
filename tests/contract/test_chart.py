"""The Helm chart, rendered by a real Helm and offered to a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.agent.models import ActionName
from app.config import Settings, load_settings
from app.connectors.kubernetes.access import needed_rights, supplementary_rights
from app.settings.services import read_services
from scripts.chart import CHART, ENABLED_BY_NAME, generated
from testbed import TestbedError
from testbed.helm import helm
from testbed.kubeapi import Api
from testbed.rbac import ADMIN
from testbed.world import TestBed
from tests.contract.manifests import container_of, created, of_kind, pod_of, rendered, restrict

pytestmark = pytest.mark.real

DISTRIBUTED = ("--set", "mode=distributed", "--set", "database.existingSecret=heal-database")
FILES = (
    *("--set", "mode=distributed"),
    *("--set-json", 'secretFiles={"DATABASE_URL": {"secret": "heal", "key": "url"}}'),
    *("--set-json", 'config={"max_services": 2000000, "slo_max_error_rate": 0.02}'),
    *("--set-json", 'services={"prod/shop": {"autonomy": "ask"}}'),
)
EAST = (
    'clusters={"east": {"kubeconfig": {"secret": "heal-clusters", "key": "east"}, '
    '"environment_namespaces": {"prod-east": "payments"}}}'
)
FORMS: dict[str, Sequence[str]] = {
    "single": (),
    "files": FILES,
    "distributed": DISTRIBUTED,
    "namespaced": ("--set", "environmentNamespaces.prod=payments", "--set", "dryRun=false"),
    "clusters": ("--set", "environmentNamespaces.prod=payments", "--set-json", EAST),
}


def test_generated_files_are_up_to_date() -> None:
    """`python -m scripts.chart` writes them."""
    assert {path.name for path, content in generated().items() if path.read_text() != content} == set()


@pytest.mark.parametrize("form", FORMS)
async def test_the_api_server_accepts_every_object(form: str, api: Api, namespace: str) -> None:
    """In a dry run; the namespace admits only what the Pod Security Standard `restricted` allows."""
    await restrict(api, namespace)
    options = [option.replace("payments", namespace) for option in FORMS[form]]
    objects = rendered(*options, namespace=namespace)
    account = of_kind(objects, "ServiceAccount")
    for one in account:  # a pod is admitted only if its account exists
        await created(api, one, namespace)
    for one in objects:
        if one not in account:
            await created(api, one, namespace, dry_run=True)
    for deployment in of_kind(objects, "Deployment"):
        await created(api, pod_of(deployment), namespace, dry_run=True)


def test_pods_run_without_privileges() -> None:
    """Not as root, on a read-only root file system, without capabilities."""
    for form in FORMS.values():
        for deployment in of_kind(rendered(*form), "Deployment"):
            pod, container = deployment["spec"]["template"]["spec"], container_of(deployment)
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_distributed_release_has_a_deployment_and_a_budget_for_each_role() -> None:
    """API, workers and watcher are scaled and drained apart."""
    objects = rendered(*DISTRIBUTED)
    roles = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: container_of(one)["args"]
        for one in of_kind(objects, "Deployment")
    }
    assert roles == {role: ["run", "--role", role] for role in ("api", "worker", "watch")}
    assert len(of_kind(objects, "PodDisruptionBudget")) == 3
    assert not of_kind(objects, "PersistentVolumeClaim")


def test_nothing_runs_without_identity() -> None:
    """The chart makes an administrator token of the form that the agent takes."""
    objects = rendered()
    (settings,) = of_kind(objects, "ConfigMap")
    (secret,) = of_kind(objects, "Secret")
    assert settings["data"]["REQUIRE_IDENTITY"] == "true"
    assert settings["data"]["DRY_RUN"] == "true"
    assert set(secret["data"]) == {"INITIAL_ADMIN_TOKEN"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "mode=distributed"), "database.existingSecret"),
        (("--set", "enabledActions={shell}"), "shell is not an action"),
        (("--set", "mode=other"), "mode"),
        (("--set-string", "settings.DRY_RUN=false"), "set by another value"),
        (("--set", "config.dry_run=false"), "set by another value"),
        (
            ("--set-json", 'secretFiles={"DATABASE_URL": {"secret": "s", "key": "k"}}'),
            "needs mode distributed",
        ),
        (("--set", "secretFiles.SLACK_BOT_TOKEN.secret=slack"), "key"),
        (("--set", "typo=1"), "typo"),
        (("--set-json", EAST), "clusters needs environmentNamespaces"),
        (("--set", "ownCluster=false,environmentNamespaces.prod=payments"), "belongs to the own cluster"),
        (("--set", "config.clusters.east.context=east"), "set by another value"),
        (("--set-string", "settings.KUBECONFIG=/tmp/config"), "set by another value"),
        (
            ("--set-json", 'clusters={"east": {"environment_namespaces": {"prod-east": "payments"}}}'),
            "kubeconfig",
        ),
        (("--set-json", EAST.replace('"east": {"k', '"East": {"k')), "East"),
    ],
)
def test_wrong_values_are_refused(options: tuple[str, ...], message: str) -> None:
    """Before anything is installed, with the name of the value."""
    with pytest.raises(TestbedError, match=message):
        rendered(*options)


def test_files_hold_what_the_values_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent reads the mounted files; a change of them restarts no pod, one of a secret does."""
    objects = rendered(*FILES)
    environment, files = of_kind(objects, "ConfigMap")
    for name, text in files["data"].items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "config.yaml"))
    (tmp_path / "url").write_text("postgresql://db/heal")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    assert (load_settings().max_services, load_settings().slo_max_error_rate) == (2_000_000, 0.02)
    assert [key.service for key in read_services(tmp_path / "services.yaml")] == ["shop"]
    mounts = {
        one["name"]: one["mountPath"]
        for one in container_of(of_kind(objects, "Deployment")[0])["volumeMounts"]
    }
    assert environment["data"]["CONFIG_FILE"] == f"{mounts['files']}/config.yaml"
    assert environment["data"]["SERVICES_FILE"] == f"{mounts['files']}/services.yaml"
    assert environment["data"]["DATABASE_URL_FILE"] == f"{mounts['secrets']}/DATABASE_URL"
    changed = rendered(*FILES, "--set", "config.slo_max_error_rate=0.5")
    assert _pod_annotations(changed) == _pod_annotations(objects)
    assert _pod_annotations(rendered(*FILES, "--set", "secretFiles.DATABASE_URL.key=x")) != _pod_annotations(
        objects
    )


def _pod_annotations(objects: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [one["spec"]["template"]["metadata"]["annotations"] for one in of_kind(objects, "Deployment")]


SETS: dict[str, frozenset[ActionName]] = {
    "none": frozenset(),
    "all": ENABLED_BY_NAME,
    **{name.value: frozenset({name}) for name in sorted(ENABLED_BY_NAME)},
}


@pytest.mark.parametrize("enabled", SETS)
async def test_the_role_grants_exactly_what_the_enabled_actions_need(
    enabled: str, api: Api, namespace: str
) -> None:
    """Each right of an enabled action is allowed, each right that only others need is forbidden."""
    names = json.dumps(sorted(SETS[enabled]))
    options = ("--set", f"environmentNamespaces.prod={namespace}", "--set-json", f"enabledActions={names}")
    objects = rendered(*options, namespace=namespace)
    for kind in ("Role", "RoleBinding"):
        for one in of_kind(objects, kind):
            await created(api, one, namespace)
    (account,) = of_kind(objects, "ServiceAccount")
    user = f"system:serviceaccount:{namespace}:{account['metadata']['name']}"
    reading = {(one.verb, one.group, one.resource) for one in supplementary_rights()}
    granted = {*_rights(SETS[enabled]), *reading}
    for right in sorted({*_rights(ENABLED_BY_NAME), *reading}):
        assert await _allowed(api, user, namespace, right) == (right in granted), right
    for forbidden in (("delete", "apps", "deployments"), ("get", "", "secrets"), ("create", "", "pods/exec")):
        assert not await _allowed(api, user, namespace, forbidden)


def _rights(actions: frozenset[ActionName]) -> Iterator[tuple[str, str, str]]:
    for one in needed_rights(Settings(_env_file=None, enabled_actions=actions)):
        yield one.verb, one.group, one.resource


async def _allowed(api: Api, user: str, namespace: str, right: tuple[str, str, str]) -> bool:
    verb, group, resource = right
    resource, _, subresource = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": {**asked, "subresource": subresource}},
    }
    answer = await api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    answer.raise_for_status()
    return bool(answer.json()["status"]["allowed"])


def test_settings_that_need_rights_of_their_own_get_them_only_where_set() -> None:
    """Secrets and logs are not readable by default."""

    def resources(*options: str) -> set[str]:
        (role, *_) = of_kind(rendered(*options), "ClusterRole")
        return {one for rule in role["rules"] for one in rule["resources"]}

    plain = resources()
    assert not plain & {"secrets", "pods/log"}
    asked = resources(
        "--set-string", "settings.HELM_RELEASES=true", "--set-string", "settings.LOG_EVIDENCE=true"
    )
    assert asked - plain == {"secrets", "pods/log"}
    assert resources("--set", "config.helm_releases=true", "--set-string", "settings.LOG_EVIDENCE=1") == asked
    assert (
        resources("--set", "config.log_evidence=true", "--set-string", "settings.LOG_EVIDENCE=false") == plain
    )


@pytest.mark.parametrize("scope", [(), ("--set", "environmentNamespaces.prod=payments")])
def test_flux_is_read_and_written_in_all_namespaces_only_where_it_is_enabled(scope: tuple[str, ...]) -> None:
    """A source may be shared with a Kustomization of any namespace, whichever the agent watches."""

    def rights(*options: str) -> set[tuple[str, str, str]]:
        return {
            (verb, group, resource)
            for role in of_kind(rendered(*scope, *options), "ClusterRole")
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    enabled = Settings(_env_file=None, flux_enabled=True, enabled_actions=frozenset())
    plain = set(needed_rights(Settings(_env_file=None, enabled_actions=frozenset())))
    needed = {(one.verb, one.group, one.resource) for one in needed_rights(enabled) if one not in plain}
    assert len(needed) == 7
    for options in (("--set-string", "settings.FLUX_ENABLED=true"), ("--set", "config.flux_enabled=true")):
        assert rights(*options) - rights() == needed


async def test_a_release_keeps_its_token_over_upgrades(
    api: Api, testbed_world: TestBed, namespace: str
) -> None:
    """Installed, upgraded as the documentation says, and removed by a real Helm; the Secret stays."""
    where = ("--namespace", namespace, "--kubeconfig", testbed_world.control_plane.kubeconfig(ADMIN))
    name = f"heal-{namespace}"

    async def token() -> str:
        answer = await api.request(
            "GET", f"/api/v1/namespaces/{namespace}/secrets/{name}-self-healing-devops-agent-admin"
        )
        answer.raise_for_status()
        return str(answer.json()["data"]["INITIAL_ADMIN_TOKEN"])

    helm("install", name, CHART, *where, "--set", "image.repository=registry.example.com/agent")
    try:
        first = await token()
        helm("upgrade", name, CHART, *where, "--reset-then-reuse-values", "--set", "dryRun=false")
        assert await token() == first
        assert "repository: registry.example.com/agent" in helm("get", "values", name, *where)
    finally:
        helm("uninstall", name, *where)
    assert await token() == first
