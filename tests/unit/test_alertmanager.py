"""Deliveries of Alertmanager, captured ones and broken ones, as signals."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.models import Alert, SignalKind, Trigger
from app.config import Settings
from app.connectors.alerts import delivery as alert_delivery
from app.connectors.alerts.delivery import AlertBatch
from app.connectors.alerts.labels import SERVICE_LABELS, is_exporter
from app.errors import Invalid
from tests.deliveries import alerts_to_signals

CAPTURED = json.loads((Path(__file__).parents[1] / "data" / "alertmanager-webhook-v4.json").read_text())
RECEIVED = datetime(2026, 11, 23, 13, 10, 2, tzinfo=UTC)
SETTINGS = Settings.model_validate({"environment_namespaces": {"prod": "payments"}})
BASE = {"alertname": "HighErrorRate", "namespace": "payments"}


def captured(name: str) -> AlertBatch:
    """One captured delivery, taken apart as of the moment it was captured."""
    delivery = CAPTURED[name]
    received_at = datetime.fromtimestamp(delivery["received_at"], UTC)
    return alerts_to_signals(delivery["body"], settings=SETTINGS, received_at=received_at)


def delivery(labels: dict[str, str] | None = None, **changes: object) -> dict[str, Any]:
    """The captured firing delivery with other labels, or other fields of its alert."""
    body: dict[str, Any] = copy.deepcopy(CAPTURED["firing"]["body"])
    alert = body["alerts"][0]
    if labels is not None:
        alert["labels"] = labels
    alert.update(changes)
    return body


def with_labels(labels: object) -> dict[str, Any]:
    """The captured firing delivery with labels that are none."""
    body = delivery()
    body["alerts"][0]["labels"] = labels
    return body


def mapped(labels: dict[str, str], **settings: object) -> ServiceKey:
    """The service that an alert with these labels is about."""
    batch = alerts_to_signals(
        delivery(labels),
        settings=Settings.model_validate({**SETTINGS.model_dump(), **settings}),
        received_at=RECEIVED,
    )
    assert batch.unmapped == ()
    return batch.signals[0].key


def reason(labels: dict[str, str] | None = None, **changes: object) -> str:
    """Why the alert became no signal."""
    batch = alerts_to_signals(delivery(labels, **changes), settings=SETTINGS, received_at=RECEIVED)
    assert batch.signals == ()
    return batch.unmapped[0].reason


def test_a_captured_firing_alert_becomes_a_signal() -> None:
    """With everything that the agent needs to know about it."""
    (signal,) = captured("firing").signals
    assert signal.key == ServiceKey(environment="prod", service="payments-api")
    assert (signal.kind, signal.source, signal.stale) == (SignalKind.ALERT, "alertmanager", False)
    starts_at = datetime(2026, 11, 23, 13, 10, 1, 234_000, tzinfo=UTC)
    assert signal.observed_at == starts_at
    assert isinstance(signal.payload, Alert)
    assert signal.payload.labels is not None
    assert dict(signal.payload.labels)["alertname"] == "HighErrorRate"
    assert replace(signal.payload, labels=None) == Alert(
        name="HighErrorRate",
        firing=True,
        fingerprint="cc1ab10f0675e3f7",
        starts_at=starts_at,
        trigger=Trigger.HIGH_ERROR_RATE,
        summary="error rate 35.97% on payments-api",
        cluster="eu-1",
    )


def test_a_captured_resolved_alert_says_when_it_ended() -> None:
    """It is the end of the same alert, not the same signal."""
    (firing,), (resolved,) = captured("firing").signals, captured("resolved").signals
    assert isinstance(resolved.payload, Alert)
    assert not resolved.payload.firing
    assert resolved.observed_at == datetime(2026, 11, 23, 13, 10, 11, 234_000, tzinfo=UTC)
    assert resolved.dedup_key != firing.dedup_key
    assert isinstance(firing.payload, Alert)
    assert resolved.payload.starts_at == firing.payload.starts_at


def test_all_captured_deliveries_are_different_observations() -> None:
    """Fired, resolved, and fired again with the same fingerprint: each counts."""
    names = [name for name in CAPTURED if not name.startswith("_")]
    assert len({captured(name).signals[0].dedup_key for name in names}) == len(names) == 4


def test_a_delivery_sent_twice_is_one_observation() -> None:
    """Retries and repeats have the same key, whenever they arrive and however the time is written."""
    first = alerts_to_signals(delivery(), settings=SETTINGS, received_at=RECEIVED)
    again = alerts_to_signals(
        delivery(startsAt="2026-11-23T14:10:01.234+01:00", fingerprint="CC1AB10F0675E3F7"),
        settings=SETTINGS,
        received_at=RECEIVED + timedelta(hours=4),
    )
    assert first.signals[0].dedup_key == again.signals[0].dedup_key
    assert first.signals[0].id != again.signals[0].id


def test_an_alert_that_has_been_firing_for_a_day_is_current() -> None:
    """Alertmanager reports what is true now; staleness is judged by delivery."""
    began = RECEIVED - timedelta(days=1)
    batch = alerts_to_signals(delivery(startsAt=began.isoformat()), settings=SETTINGS, received_at=RECEIVED)
    assert batch.signals[0].observed_at == began
    assert not batch.signals[0].stale


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"service": "a", "app_kubernetes_io_name": "b", "app": "c", "deployment": "d"}, "a"),
        ({"app_kubernetes_io_name": "b", "app": "c", "deployment": "d", "job": "j"}, "b"),
        ({"app": "c", "deployment": "d", "pod": "p-7d9c5b8f6d-x2x4z"}, "c"),
        ({"deployment": "d", "pod": "p-7d9c5b8f6d-x2x4z", "job": "j"}, "d"),
        ({"pod": "payments-api-7d9c5b8f6d-x2x4z", "job": "j"}, "payments-api"),
        ({"deployment": "database", "pod": "database-7d9c5b8f6d-x2x4z", "job": "j"}, "database"),
        ({"job": "payments/payments-api"}, "payments-api"),
        ({"service": "", "deployment": "d"}, "d"),
        ({"service": "kube-state-metrics", "job": "kube-state-metrics", "deployment": "d"}, "d"),
        ({"service": "prometheus-kube-state-metrics", "pod": "p-7d9c5b8f6d-x2x4z"}, "p"),
        ({"service": "scraper", "exported_service": "a"}, "a"),
        ({"service": "prometheus-blackbox-exporter", "exported_job": "a"}, "a"),
        ({"service": "blackbox-studio"}, "blackbox-studio"),
        ({"kubernetes.deployment.name": "d"}, "d"),
        ({"kubernetes_statefulset_name": "d"}, "d"),
    ],
)
def test_the_service_is_the_first_label_that_names_one(labels: dict[str, str], service: str) -> None:
    """In the documented order; exporters are messengers, and what the metric itself said comes first."""
    assert mapped({**BASE, **labels}).service == service


def test_the_order_of_labels_is_the_documented_one() -> None:
    """The module gives the order in words: the words and the tuple agree."""
    documented = str(alert_delivery.__doc__)
    places = [documented.index(f"`{label}`") for label in SERVICE_LABELS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("labels", "environment"),
    [
        ({"environment": "staging", "env": "x"}, "staging"),
        ({"environment": "staging", "env": "x", "namespace": "payments"}, "staging--payments"),
        ({"env": "staging", "namespace": "payments"}, "staging--payments"),
        ({"env": "prod", "namespace": "payments"}, "prod"),
        ({"env": "prod", "namespace": "checkout"}, "prod--checkout"),
        ({"env": "checkout", "namespace": "checkout"}, "checkout"),
        ({"cluster": "eu-1", "namespace": "payments"}, "prod"),
        ({"cluster": "us-1", "env": "live", "namespace": "payments"}, "live--payments"),
        ({"namespace": "payments"}, "prod"),
        ({"namespace": "elsewhere"}, "elsewhere"),
    ],
)
def test_the_environment_is_reported_or_follows_from_the_namespace(
    labels: dict[str, str], environment: str
) -> None:
    """The configured environment of the namespace, else its name; a label that says more is part of it."""
    assert mapped({"alertname": "X", "service": "a", **labels}).environment == environment


@pytest.mark.parametrize(
    "name", ["kubernetes_namespace_name", "kubernetes.namespace", "namespace_name", "k8s.namespace.name"]
)
def test_a_namespace_has_many_names(name: str) -> None:
    """Log shippers, clouds and OpenTelemetry each have their own."""
    labels = {"alertname": "X", "service": "a", name: "payments"}
    assert mapped(labels) == ServiceKey(environment="prod", service="a")


@pytest.mark.parametrize(
    "labels",
    [
        {"job": "blackbox-http", "service": "prometheus-blackbox-exporter"},
        {"job": "blackbox_http_2xx"},
        {"job": "probes-of-the-shop", "service": "prometheus-blackbox-exporter"},
        {"job": "shop-database", "pod": "shop-postgres-exporter-7d9c5b8f6d-x2x4z"},
        {"job": "hosts", "container": "telegraf"},
    ],
)
def test_the_job_of_an_exporter_is_not_a_service(labels: dict[str, str]) -> None:
    """One label of the target that names an exporter says what the whole target is."""
    batch = alerts_to_signals(delivery({**BASE, **labels}), settings=SETTINGS, received_at=RECEIVED)
    assert batch.signals == ()
    assert "reports the metric but is not its subject" in batch.unmapped[0].reason


def test_the_namespace_of_the_subject_is_that_of_its_own_labels() -> None:
    """What the metric itself says stands before what the scrape adds."""
    labels = {"namespace": "monitoring", "exported_namespace": "payments", "exported_service": "a"}
    assert mapped({"alertname": "X", **labels}) == ServiceKey(environment="prod", service="a")


@pytest.mark.parametrize(
    "labels", [{"deployment": "pay-v2"}, {"pod": "pay-v2-7d9c5b8f6d-x2x4z", "service": "pay-v2"}]
)
def test_a_configured_workload_names_its_service(labels: dict[str, str]) -> None:
    """SERVICE_WORKLOADS works backwards too, so that alert and cluster speak of one service."""
    key = mapped({**BASE, **labels}, service_workloads={"live/payments-api": "payments/pay-v2"})
    assert key == ServiceKey(environment="live", service="payments-api")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"alertname": "X", "namespace": "payments"}, "no label names the service; add one of service"),
        ({"alertname": "X", "service": "a"}, "no label names the environment"),
        ({**BASE, "service": "Payments API"}, "label service is 'Payments API'; it must be a DNS label"),
        ({**BASE, "service": "a" * 64}, "label service"),
        ({**BASE, "service": "a\n"}, "label service"),
        ({**BASE, "service": "a", "env": "../prod"}, "label env"),
        ({"alertname": "X", "service": "a", "namespace": "Ns"}, "label namespace"),
        ({**BASE, "service": "a", "heal_trigger": "panic"}, "use one of deploy_failed, high_error_rate"),
        ({**BASE, "service": "a", "heal_trigger": "batch_failed"}, "not an outage of a service"),
        ({**BASE, "service": "kubelet"}, "no label names the service: kubelet reports the metric"),
    ],
)
def test_an_alert_that_names_no_service_is_reported(labels: dict[str, str], words: str) -> None:
    """With its fingerprint, and with what to change."""
    assert words in reason(labels)


@pytest.mark.parametrize(
    ("labels", "trigger"),
    [
        ({}, Trigger.HIGH_ERROR_RATE),
        ({"alertname": "DiskFull"}, None),
        ({"alertname": "DiskFull", "heal_trigger": "crash_loop"}, Trigger.CRASH_LOOP),
        ({"heal_trigger": "high_latency"}, Trigger.HIGH_LATENCY),
    ],
)
def test_what_an_alert_means_is_configured_or_labelled(
    labels: dict[str, str], trigger: Trigger | None
) -> None:
    """The alert's own label wins; an alert without a meaning is still a signal."""
    batch = alerts_to_signals(
        delivery({**BASE, "service": "a", **labels}), settings=SETTINGS, received_at=RECEIVED
    )
    payload = batch.signals[0].payload
    assert isinstance(payload, Alert)
    assert payload.trigger is trigger


@pytest.mark.parametrize(
    ("starts_at", "words"),
    [
        ("0001-01-01T00:00:00Z", "not a start time"),
        ("0001-01-01T00:00:00+10:00", "not a start time"),
        ("1970-01-01T00:00:00Z", "not a start time"),
        ("2026-11-23T13:15:03Z", "in the future; check the clocks"),
        ("9999-12-31T23:59:59-10:00", "not a start time"),
    ],
)
def test_absurd_beginnings_are_reported(starts_at: str, words: str) -> None:
    """A time that cannot be is no identity either."""
    assert words in reason(startsAt=starts_at)


def test_a_slightly_fast_clock_is_forgiven() -> None:
    """A beginning a little ahead of the agent's clock counts as now."""
    batch = alerts_to_signals(
        delivery(startsAt="2026-11-23T13:15:00Z"), settings=SETTINGS, received_at=RECEIVED
    )
    assert batch.signals[0].observed_at == RECEIVED


@pytest.mark.parametrize(
    "ends_at", ["0001-01-01T00:00:00Z", "2026-11-23T13:00:00Z", "2027-01-01T00:00:00Z", None]
)
def test_an_absurd_end_counts_as_now(ends_at: str | None) -> None:
    """Before the beginning, after the delivery, or not told: the alert is over as of the delivery."""
    batch = alerts_to_signals(
        delivery(status="resolved", endsAt=ends_at), settings=SETTINGS, received_at=RECEIVED
    )
    assert batch.signals[0].observed_at == RECEIVED


def test_one_bad_alert_does_not_spoil_the_others() -> None:
    """A refused delivery would be dropped whole."""
    body = delivery()
    bad = copy.deepcopy(body["alerts"][0])
    bad["labels"] = {"alertname": "Nameless"}
    bad["fingerprint"] = "00ff"
    body["alerts"] = [bad, *body["alerts"]]
    batch = alerts_to_signals(body, settings=SETTINGS, received_at=RECEIVED)
    assert len(batch.signals) == 1
    assert [(u.fingerprint, u.name) for u in batch.unmapped] == [("00ff", "Nameless")]
    assert str(batch.unmapped[0]).startswith("Nameless (00ff): no label names the environment")


def test_alerts_that_alertmanager_left_out_are_reported() -> None:
    """A truncated delivery says that there is more, and how to get it."""
    batch = alerts_to_signals({**delivery(), "truncatedAlerts": 7}, settings=SETTINGS, received_at=RECEIVED)
    assert len(batch.signals) == 1
    assert str(batch.unmapped[0]).startswith(
        "Alertmanager truncated 7 alerts from this delivery; raise max_alerts"
    )


def test_a_delivery_without_alerts_is_empty() -> None:
    """Without a report no signal."""
    batch = alerts_to_signals({**delivery(), "alerts": []}, settings=SETTINGS, received_at=RECEIVED)
    assert batch == AlertBatch(signals=(), unmapped=())


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "body"),
        ([], "body"),
        ("x", "body"),
        ({}, "body"),
        ({"version": "4"}, "body"),
        ({"version": "3", "alerts": []}, "version"),
        ({"version": "4", "alerts": {}}, "alerts"),
        ({"version": "4", "alerts": [], "truncatedAlerts": -1}, "truncatedAlerts"),
        ({"version": True, "alerts": []}, "version"),
        ({"version": "4", "alerts": [1]}, "alerts[0]"),
        (delivery(status="pending"), "alerts[0].status"),
        (delivery(startsAt="yesterday"), "alerts[0].startsAt"),
        (delivery(startsAt="2026-11-23T13:10:01"), "alerts[0].startsAt"),
        (delivery(startsAt=5), "alerts[0].startsAt"),
        (delivery(startsAt=""), "alerts[0].startsAt"),
        ({"version": "4", "alerts": [{"status": "firing"}]}, "alerts[0]"),
        (with_labels(None), "alerts[0].labels"),
    ],
)
def test_what_is_no_delivery_is_refused_with_field_and_fix(payload: object, field: str) -> None:
    """The sender learns where, what and what instead."""
    with pytest.raises(Invalid) as caught:
        alerts_to_signals(payload, settings=SETTINGS, received_at=RECEIVED)
    assert str(caught.value).startswith(f"{field}: ")
    assert "; send" in str(caught.value)


def test_texts_are_made_safe_to_show() -> None:
    """Name and summary are one printable line of bounded length."""
    body = delivery({**BASE, "alertname": "A\x1b[31m\nB" + "x" * 1_000, "service": "a"})
    body["alerts"][0]["annotations"] = {"summary": "one\ntwo" + "y" * 10_000}
    payload = alerts_to_signals(body, settings=SETTINGS, received_at=RECEIVED).signals[0].payload
    assert isinstance(payload, Alert)
    assert payload.name.startswith("A [31m Bx")
    assert (len(payload.name), len(payload.summary)) == (200, 500)
    assert payload.name.isprintable()
    assert payload.summary.startswith("one two")


@given(labels=st.dictionaries(st.sampled_from(["alertname", "namespace", "env", *SERVICE_LABELS]), st.text()))
def test_any_labels_end_as_a_signal_or_a_reason(labels: dict[str, str]) -> None:
    """Nothing is lost and nothing is raised; a signal's names are DNS labels."""
    batch = alerts_to_signals(delivery(labels), settings=SETTINGS, received_at=RECEIVED)
    assert len(batch.signals) + len(batch.unmapped) == 1
    for signal in batch.signals:
        for name in (signal.key.service, signal.key.environment):
            assert 0 < len(name) <= 63
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("given", [None, "", "not hex", "keep:7", "f" * 65, "a" * 5_000, 17, ["ab"]])
def test_an_alert_without_a_usable_fingerprint_is_identified_by_its_labels(given: object) -> None:
    """The same labels are the same alert, whenever they come, and other labels another one."""
    labels = {**BASE, "service": "a"}
    first, again, other = (
        alerts_to_signals(delivery(each, fingerprint=given), settings=SETTINGS, received_at=RECEIVED)
        for each in (labels, dict(reversed(labels.items())), {**labels, "shard": "2"})
    )
    payload = first.signals[0].payload
    assert isinstance(payload, Alert)
    assert len(payload.fingerprint) == 16
    assert set(payload.fingerprint) <= set("0123456789abcdef")
    assert first.signals[0].dedup_key == again.signals[0].dedup_key
    assert first.signals[0].dedup_key != other.signals[0].dedup_key


def test_an_odd_alert_among_others_is_named_with_its_field() -> None:
    """An unreadable alert keeps its place, and affects no other."""
    body = delivery()
    body["alerts"] = [17, {**body["alerts"][0], "startsAt": None}, *body["alerts"]]
    batch = alerts_to_signals(body, settings=SETTINGS, received_at=RECEIVED)
    assert len(batch.signals) == 1
    assert [one.name for one in batch.unmapped] == ["alerts[0]", "HighErrorRate"]
    assert batch.unmapped[1].reason.startswith("alerts[1].startsAt: ")


def test_an_alert_for_want_of_data_is_another_observation_than_the_real_one() -> None:
    """Grafana keeps fingerprint and start when a rule that had no data turns out to be met."""
    blind = delivery()
    blind["alerts"][0]["annotations"] = {"grafana_state_reason": "NoData"}
    first = alerts_to_signals(blind, settings=SETTINGS, received_at=RECEIVED).signals[0]
    real = alerts_to_signals(delivery(), settings=SETTINGS, received_at=RECEIVED).signals[0]
    assert first.dedup_key != real.dedup_key
    assert isinstance(first.payload, Alert)
    assert (first.payload.telemetry, first.payload.trigger) == (True, None)


_NAMES = st.sampled_from(
    [
        *("till-api", "till-api-7f9d8c6b5f-k8s2z", "queue-0", "sums-29384105-7xk2d", "prod", "shop"),
        *("kube-state-metrics", "obs-kube-state-metrics", "obs-kube-state-metrics-7f9d8c6b5f-k8s2z"),
        *("node_exporter", "integrations/node_exporter", "shop/postgres-exporter", "kubelet", "blackbox"),
        *("prometheus-node-exporter-8xk2d", "Not A Name", "", "x" * 63, "kubernetes-pods"),
    ]
)
_LABELS = st.sampled_from(
    [
        *("service", "app", "pod", "job", "container", "deployment", "namespace", "statefulset", "job_name"),
        *("exported_service", "exported_pod", "exported_job", "exported_namespace", "exported_container"),
        *("service.name", "k8s.pod.name", "k8s_deployment_name", "app.kubernetes.io/name", "workload"),
        *("env", "cluster", "destination_workload", "destination_service_name", "workload_type"),
    ]
)


@given(labels=st.dictionaries(_LABELS, _NAMES, max_size=8))
def test_an_exporter_is_never_the_service(labels: dict[str, str]) -> None:
    """Whatever labels come together, in whatever dialect."""
    batch = alerts_to_signals(delivery(labels), settings=SETTINGS, received_at=RECEIVED)
    for signal in batch.signals:
        assert not is_exporter(signal.key.service)


@given(labels=st.dictionaries(_LABELS, _NAMES, max_size=8), namespaces=st.permutations(["till", "cart"]))
def test_two_namespaces_are_never_one_place(labels: dict[str, str], namespaces: list[str]) -> None:
    """Whatever else the labels say, the same for both."""
    keys = set()
    for namespace in namespaces:
        place = {"namespace": namespace, "exported_namespace": namespace}
        given = {**labels, **place, "destination_workload_namespace": namespace}
        batch = alerts_to_signals(delivery(given), settings=SETTINGS, received_at=RECEIVED)
        keys |= {signal.key for signal in batch.signals}
    assert len(keys) in {0, 2}
