"""What the connector of Argo CD reads of an Application, and its notification template."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.actions.application import refuses
from app.agent.evidence.syncs import with_syncs
from app.agent.gitops.application import Application, ApplicationRef, SyncedRevision
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Change, ChangeKind
from app.agent.workload import ObjectRef
from app.connectors.argocd.answers import MARK, application_from, images_in, may_sync
from app.connectors.argocd.reader import tracked
from app.connectors.argocd.writer import knows_enabled
from app.wire.events import DeployEvent

KEY = ServiceKey(environment="prod", service="shop")
AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TARGET = ObjectRef(kind="Deployment", namespace="prod", name="shop")
SOURCE = {"repoURL": "https://git.example.com/team/shop.git", "path": "apps/shop", "targetRevision": "main"}


def body(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metadata": {"name": "shop", "namespace": "argocd", **changes.pop("metadata", {})},
        "spec": {
            "source": SOURCE,
            "syncPolicy": {"automated": {"selfHeal": True}},
            **changes.pop("spec", {}),
        },
        "status": {
            "sync": {"status": "Synced"},
            "health": {"status": "Healthy"},
            **changes.pop("status", {}),
        },
    }
    return {**found, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"metadata": {"ownerReferences": [{"kind": "ApplicationSet", "name": "shops"}]}},
            "ApplicationSet shops",
        ),
        ({"metadata": {"labels": {"argocd.argoproj.io/instance": "root"}}}, "deployed by application root"),
        ({"metadata": {"deletionTimestamp": "2026-11-20T12:00:00Z"}}, "being deleted"),
        ({"spec": {"sources": [SOURCE, SOURCE]}}, "several sources"),
        ({"spec": {"source": {**SOURCE, "chart": "shop"}}}, "takes a packaged chart"),
        ({"spec": {"source": {**SOURCE, "targetRevision": "a" * 40}}}, "follows a fixed commit"),
        ({"status": {"resources": [{"kind": "Application", "name": "a"}]}}, "deploys other applications"),
        ({"operation": {"sync": {}}}, "an operation of"),
        ({"status": {"operationState": {"phase": "Terminating", "startedAt": "x"}}}, "an operation of"),
    ],
)
def test_what_forbids_acting_through_an_application_is_a_sentence(
    changes: dict[str, Any], words: str
) -> None:
    """Each names the application and its owner, and stops the action."""
    found = application_from(body(**changes))
    assert words in found.obstacles[0]
    assert refuses(found) == found.obstacles[0]


def test_an_application_that_an_earlier_action_holds_is_left_alone() -> None:
    """Its automated sync is off by the agent: a second rollback would record the wrong policy."""
    marked = {"annotations": {MARK: "int_1"}}
    found = application_from(body(metadata=marked, spec={"syncPolicy": {"automated": {"enabled": False}}}))
    assert found.held_by == IntentId("int_1")
    assert refuses(application_from(body(metadata=marked))) is None
    assert "switched off by an earlier action" in (refuses(found) or "")


@pytest.mark.parametrize(
    ("policy", "automated"),
    [
        ({}, False),
        ({"automated": {}}, True),
        ({"automated": {"enabled": False}}, False),
        ({"automated": None}, False),
    ],
)
def test_automated_sync_is_read_in_every_form(policy: dict[str, Any], *, automated: bool) -> None:
    """`enabled: false` of 3.1 and later, and no `automated` at all."""
    assert application_from(body(spec={"syncPolicy": policy})).automated is automated


def test_the_history_and_the_operation_are_read() -> None:
    """The first entry has no id; the newest comes first; a sync begins when it was started."""
    entries = [
        {"revision": "a" * 40, "deployedAt": "2026-11-20T12:00:00Z"},
        {
            "id": 1,
            "revision": "b" * 40,
            "deployedAt": "2026-11-20T12:05:00Z",
            "deployStartedAt": "2026-11-20T12:04:00Z",
            "initiatedBy": {"username": "ann"},
        },
    ]
    state = {
        "phase": "Error",
        "startedAt": "s",
        "operation": {"sync": {"revision": "b" * 40}},
        "message": "m",
    }
    found = application_from(body(status={"history": entries, "operationState": state}))
    assert [(one.id, one.by, one.at) for one in found.history] == [
        (1, "ann", AT + timedelta(minutes=4)),
        (0, None, AT),
    ]
    assert found.operation is not None
    assert (found.operation.phase, found.operation.revision) == ("failed", "b" * 40)


def test_images_are_read_from_rendered_manifests() -> None:
    """Of the one workload; a manifest without a namespace goes to the application's own."""
    containers = [{"image": "b:1"}, {"image": "a:1"}]
    item = {
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {"template": {"spec": {"containers": containers}}},
    }
    other = {"kind": "Deployment", "metadata": {"name": "shop", "namespace": "test"}}
    assert images_in({"manifests": ["{", json.dumps(other), json.dumps(item)]}, TARGET) == ("a:1", "b:1")
    assert images_in({"manifests": [json.dumps(other)]}, TARGET) is None


@pytest.mark.parametrize(
    ("mark", "ref"),
    [
        ("shop:apps/Deployment:prod/shop", "/shop"),
        ("team_shop:apps/Deployment:prod/shop", "team/shop"),
        ("shop:apps/Deployment:prod/other", None),
        ("shop", "/shop"),
        (None, None),
    ],
)
def test_a_tracking_mark_names_its_own_object(mark: str | None, ref: str | None) -> None:
    """A tracking id that was copied from another object does not count."""
    found = tracked(mark, TARGET)
    assert (None if found is None else str(found)) == ref


def test_versions_and_windows() -> None:
    """3.1 is the first with `enabled`; windows without an answer forbid."""
    assert [knows_enabled(one) for one in ("v3.5.7+a", "v3.1.0", "3.0.9", "v2.14", "dev")] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert may_sync({})
    assert not may_sync({"canSync": False})
    assert not may_sync({"assignedWindows": [{}]})


def _application(*entries: SyncedRevision) -> Application:
    return Application(
        ref=ApplicationRef(namespace="argocd", name="shop"),
        controller="Argo CD",
        owner="argocd",
        policy={"selfHeal": True},
        automated=True,
        health="Healthy",
        sync="Synced",
        desired="b" * 40,
        target_revision="main",
        repository="r",
        path="p",
        history=entries,
    )


def test_a_sync_that_a_report_names_is_one_change() -> None:
    """For any number of reports; an unreported sync is a change with its author."""
    syncs = _application(
        SyncedRevision(id=1, revision="b" * 40, at=AT, by="ann"),
        SyncedRevision(id=0, revision="a" * 40, at=AT - timedelta(minutes=5)),
    )
    report = Change(
        kind=ChangeKind.DEPLOY, key=KEY, at=AT, summary="deploy", version="2", commit_sha="a" * 12
    )
    found = with_syncs([report], KEY, syncs, AT - timedelta(hours=1))
    assert [one.summary for one in found] == [
        "deploy",
        "Argo CD application argocd/shop synced to bbbbbbbb by ann",
    ]
    assert with_syncs([report], KEY, None, AT) == (report,)


# ------------------------------------------------------------------ the notification template

TEMPLATE = Path(__file__).parents[2] / "deploy" / "argocd" / "notifications.yaml"


def _rendered(text: str, app: dict[str, Any]) -> dict[str, Any]:
    """The body, with the few functions that the template uses."""

    def value(match: re.Match[str]) -> str:
        words = match[1].split()
        if words[0] == "dig":
            path, default = [one.strip('"') for one in words[1:-2]], words[-2]
            found: Any = app
            for part in path:
                found = found.get(part, {}) if isinstance(found, dict) else {}
            return str(found) if found else _at(default, app)
        if words[0] == "trunc":
            return _at(words[2], app)[: int(words[1])]
        return _at(words[0], app)

    return dict(json.loads(re.sub(r"\{\{(.*?)\}\}", value, text)))


def _at(path: str, app: dict[str, Any]) -> str:
    found: Any = {"app": app}
    for part in path.strip(".").split("."):
        found = found[part]
    return str(found)


def test_the_notification_template_gives_deploy_events() -> None:
    """The shipped template renders to the body of `POST /events/deploy`, the same for a repeat."""
    data = yaml.safe_load(TEMPLATE.read_text())["data"]
    app = body(
        spec={"destination": {"namespace": "prod"}},
        status={
            "sync": {"revision": "b" * 40},
            "operationState": {
                "startedAt": "2026-11-20T12:00:00Z",
                "finishedAt": "2026-11-20T12:01:00Z",
                "syncResult": {"revision": "b" * 40},
            },
        },
    )
    sent = yaml.safe_load(data["trigger.heal-sync"])
    for name in [one["send"][0] for one in sent]:
        hook = yaml.safe_load(data[f"template.{name}"])["webhook"]["heal"]
        assert (hook["method"], hook["path"]) == ("POST", "/events/deploy")
        event = _rendered(hook["body"], app)
        assert (event["service"], event["environment"], event["version"]) == ("shop", "prod", "b" * 8)
        assert event["status"] == name.removeprefix("heal-")
        assert DeployEvent.model_validate(event).status == event["status"]
    named = {**app, "metadata": {**app["metadata"], "labels": {"app.kubernetes.io/name": "cart"}}}
    assert _rendered(hook["body"], named)["service"] == "cart"
