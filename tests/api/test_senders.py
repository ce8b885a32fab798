"""Deliveries as senders really write them: every case of `tests/data/deliveries` over the webhook.

Each file holds alerts of one kind with what must come of them. Times are relative
to the delivery: `@-120` is two minutes before it, `n` adds nine decimals, and an
offset is the one that the time is written with.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ports.cluster import PodOwner
from app.bootstrap import Adapters as Outside
from app.config import Settings
from app.connectors.alerts.labels import PodRef
from app.sandbox.objects import Pod
from app.testing import SandboxCluster, Template, VirtualClock, Workload, World
from tests.api.harness import NOW, Harness, harness, make_settings
from tests.deliveries import alerts_to_signals

FOLDER = Path(__file__).parents[1] / "data" / "deliveries"
CASES = sorted(FOLDER.glob("*.json"))
PATH = "/webhooks/alertmanager"
_RELATIVE = re.compile(r"@(-?[0-9]+)(n?)(\+[0-9]{2}:[0-9]{2})?")


def _moment(text: str) -> str:
    match = _RELATIVE.fullmatch(text)
    if match is None:
        return text
    hours = int(match[3][1:3]) if match[3] else 0
    at = (NOW + timedelta(seconds=int(match[1]))).astimezone(timezone(timedelta(hours=hours)))
    return f"{at:%Y-%m-%dT%H:%M:%S}{'.123456789' if match[2] else ''}{match[3] or 'Z'}"


def _alert(given: Any, number: int) -> Any:
    """The entry as it is sent: what the file leaves out is as Alertmanager writes it."""
    if not isinstance(given, dict):
        return given
    whole = {
        "status": "firing",
        "annotations": {"summary": "as seen"},
        "startsAt": "@-120",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prom.example/graph",
        "fingerprint": f"{number:016x}",
        **given,
    }
    return {name: _moment(item) if isinstance(item, str) else item for name, item in whole.items()}


def body_of(case: dict[str, Any]) -> dict[str, Any]:
    """The whole delivery of a case."""
    envelope = {
        "version": "4",
        "groupKey": "{}:{}",
        "receiver": "heal",
        "status": "firing",
        "truncatedAlerts": 0,
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://am.example",
    }
    alerts = [_alert(each, number) for number, each in enumerate(case["alerts"], start=1)]
    return {**envelope, **case.get("body", {}), "alerts": alerts}


def deliver(api: Harness, case: dict[str, Any]) -> dict[str, Any]:
    """The answer to the delivery of a case; Python writes lone surrogates and NUL as escapes."""
    response = api.post(PATH, content=json.dumps(body_of(case)), headers={"Content-Type": "application/json"})
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_every_case_ends_as_its_file_says(file: Path, tmp_path: Path) -> None:
    """No good alert is lost, every other one is named with a reason, and nothing is taken for another."""
    case = json.loads(file.read_text())
    with harness(make_settings(tmp_path, **case.get("settings", {}))) as api:
        answer = deliver(api, case)
        unmapped = {one["name"]: one["reason"] for one in answer["unmapped"]}
        assert len(answer["items"]) + len(answer["unmapped"]) == len(case["alerts"])
        assert set(unmapped) == set(case.get("unmapped", {}))
        for name, words in case.get("unmapped", {}).items():
            assert all(word in unmapped[name] for word in words), unmapped[name]
        for words in case.get("unasked", ()):
            assert not any(words in reason for reason in unmapped.values())
        ignored = [one["reason"] for one in answer["items"] if one["disposition"] == "ignored"]
        assert len(ignored) == len(case.get("ignored", {}))
        for words in case.get("ignored", {}).values():
            assert any(all(word in reason for word in words) for reason in ignored), ignored
        joined = [one for one in answer["items"] if one["disposition"] == "joined"]
        assert len(joined) == case.get("joined", 0)
        _incidents_are_right(api, case)


def _incidents_are_right(api: Harness, case: dict[str, Any]) -> None:
    incidents = api.get("/incidents?limit=200").json()["items"]
    counts = Counter(one["service"] for one in incidents)
    assert not set(counts) & set(case.get("never", ()))
    if "opened" in case:
        assert {one["service"]: one["environment"] for one in incidents} == case["opened"]
    for service, number in case.get("incidents", {}).items():
        assert counts[service] == number
    for service, places in case.get("places", {}).items():
        found = [one["environment"] for one in incidents if one["service"] == service]
        assert len(set(found)) == len(found)
        assert all(any(place in environment for environment in found) for place in places)


def test_the_cases_are_of_every_kind() -> None:
    """A folder that was emptied, or a file that was renamed, is no success."""
    kinds = {json.loads(file.read_text())["kind"] for file in CASES}
    assert len(CASES) >= 9
    assert len(kinds) >= 7


# ------------------------------------------------------------------ pods whose owner is asked

LONG = "subscription-renewal-reminder-dispatcher-europe-west-backfill"


@contextmanager
def _connected(tmp_path: Path) -> Iterator[tuple[Harness, World]]:
    """An agent beside a simulated cluster in which a service with a long name runs."""
    clock = VirtualClock(NOW)
    cluster = World(clock, seed=3)
    template = Template(image="reminders:1.0.0")
    cluster.deploy(Workload(namespace="prod", name=LONG, service="reminders", template=template))
    connected = Outside(owners=SandboxCluster.over(cluster).reader)
    with harness(make_settings(tmp_path), world=connected) as api:
        api.run(clock.advance(60))
        cluster.catch_up()
        yield api, cluster


def _crash(pod: str) -> dict[str, Any]:
    labels = {"alertname": "KubePodCrashLooping", "namespace": "prod", "pod": pod}
    return {"alerts": [{"labels": labels}]}


def test_the_owner_of_a_pod_is_asked_where_a_cluster_is_connected(tmp_path: Path) -> None:
    """A name of 63 characters or more names no Deployment; the cluster does, and knows its service."""
    with _connected(tmp_path) as (api, cluster):
        pod = cluster.api.list(Pod, "prod")[0].meta.name
        assert len(pod) >= 63
        assert deliver(api, _crash(pod))["items"][0]["disposition"] == "opened"
        [incident] = api.get("/incidents").json()["items"]
        assert (incident["environment"], incident["service"]) == ("prod", "reminders")


def test_a_pod_that_is_gone_or_cannot_be_asked_for_is_named(tmp_path: Path) -> None:
    """Nothing is guessed for it, and the answer says which of the two it was."""
    gone = "reminders-7xk2d"
    with _connected(tmp_path) as (api, cluster):
        assert "the cluster has no such pod" in deliver(api, _crash(gone))["unmapped"][0]["reason"]
        cluster.api.unreachable = True
        assert "could not be asked" in deliver(api, _crash(gone))["unmapped"][0]["reason"]
        assert api.incidents() == 0


@pytest.mark.parametrize("kind", ["StatefulSet", "Job", "DaemonSet", "Rollout", "Pod"])
def test_the_owner_of_a_pod_names_the_service_or_is_named_where_it_is_none(kind: str) -> None:
    """Though the name of the pod has the form of a Deployment's. A failed batch is no outage of a service."""
    pod = PodRef(namespace="prod", name="till-api-7f9d8c6b5f-k8s2z")
    body = body_of({"alerts": [{"labels": {"alertname": "X", "namespace": "prod", "pod": pod.name}}]})
    owners = {pod: PodOwner(kind=kind, name="till-api")}
    batch = alerts_to_signals(body, settings=Settings(_env_file=None), received_at=NOW, owners=owners)
    if kind in WORKLOAD_KINDS:
        assert [str(signal.key) for signal in batch.signals] == ["till-api in prod"]
        return
    assert batch.signals == ()
    assert f"{kind} prod/till-api" in batch.unmapped[0].reason
