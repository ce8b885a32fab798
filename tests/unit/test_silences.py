"""Which service and which of its alerts a silence means, and what it leaves of the reasons."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from app.agent.freshness.all_clear import all_withdrawn, firing_alerts
from app.agent.freshness.memory import ALERTS_KEPT
from app.agent.freshness.reasons import ALERT_WORDS, MergedAlerts, Reason, ReasonKind, Withdrawal
from app.agent.freshness.reports import remember_signal, repeated
from app.agent.freshness.silences import (
    MOST_STEPS,
    Matcher,
    Silence,
    Silencing,
    _steps,
    muting,
    silenced,
    unreadable,
)
from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import BURN_ALERT, POLLED, Alert, Trigger
from app.config import Settings
from app.connectors.alerts.labels import service_of
from app.connectors.alerts.silences import AlertmanagerSilences, elsewhere, silencing
from tests.deliveries import alerts_to_signals
from tests.unit.loopback import loopback, reply

NOW = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="shop")


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def matcher(text: str) -> Matcher:
    """A matcher as `amtool` writes it: name, operator, value."""
    at = min(i for i in (text.find(op) for op in ("=", "!")) if i >= 0)
    operator = text[at : at + 2] if text[at : at + 2] in ("=~", "!=", "!~") else "="
    return Matcher(
        name=text[:at],
        value=text[at + len(operator) :],
        is_regex="~" in operator,
        is_equal="!" not in operator,
    )


def silence(*conditions: str, until: float = 1, by: str = "ann") -> Silence:
    return Silence(
        id="s1",
        matchers=tuple(map(matcher, conditions)),
        starts_at=NOW - timedelta(hours=1),
        ends_at=NOW + timedelta(hours=until),
        by=by,
        comment="migration",
    )


def scope(*conditions: str, key: ServiceKey = KEY, **changes: Any) -> str:
    """How far a silence with these conditions goes for the service."""
    found = silencing(silence(*conditions), key, settings(**changes))
    if found is None:
        return "none"
    return "service" if found.whole else "alerts"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["service=shop"], "service"),
        (["service=shop", "namespace=prod"], "service"),
        (["namespace=prod"], "service"),
        (["namespace=~prod|staging"], "service"),
        (["environment=prod"], "service"),
        (["service.name=shop"], "service"),
        (["service_name=shop", "k8s.namespace.name=prod"], "service"),
        (["app_kubernetes_io_name=shop"], "service"),
        (["deployment=shop"], "service"),
        (["kube_deployment=shop", "kube_namespace=prod"], "service"),
        (["exported_namespace=prod"], "service"),
        (["exported_namespace=prod", "namespace=monitoring"], "alerts"),
        (["pod=~shop-.*"], "service"),
        (["service=~sh.*"], "service"),
        (["service!=cart", "namespace=prod"], "service"),
        (["service=~.+"], "service"),
        (["alertname=~.+"], "service"),
        (["service=shop", "severity=~.*"], "service"),
        (["service=shop", "cluster=eu-1"], "service"),
        (["alertname=HighErrorRate"], "alerts"),
        (["alertname=HighErrorRate", "service=shop"], "alerts"),
        (["service=shop", "severity=info"], "alerts"),
        (["service=shop", "severity!=page"], "alerts"),
        (["pod=shop-7d9c5b8f6d-bcd2f", "namespace=prod"], "alerts"),
        (["deployment=shop", "job=kube-state-metrics"], "alerts"),
        (["service=kube-state-metrics", "deployment=shop"], "alerts"),
        (["service=cart"], "none"),
        (["service=~cart|basket"], "none"),
        (["service=sho"], "none"),
        (["service=~sho"], "none"),
        (["service!=shop"], "none"),
        (["service!~sh.*", "namespace=prod"], "none"),
        (["namespace=staging"], "none"),
        (["environment=staging", "service=shop"], "none"),
        (["service=shop", "namespace=staging"], "none"),
        (["alertname=HighErrorRate", "service=cart"], "none"),
        (["severity=info"], "none"),
        (["service!=cart"], "none"),
        (["statefulset=shop", "namespace=prod"], "service"),
        (["daemonset=shop"], "service"),
        (["statefulset=cart"], "none"),
    ],
)
def test_a_silence_means_whom_its_labels_would_be_mapped_to(conditions: list[str], expected: str) -> None:
    """By whatever dialect of labels it names service and place; expressions are anchored."""
    assert scope(*conditions) == expected


def test_the_settings_that_map_alerts_map_silences() -> None:
    """Namespaces of environments, workloads of services, and the labels of the connected cluster."""
    mapped: dict[str, Any] = {"environment_namespaces": {"prod": "shop-prod"}}
    assert scope("namespace=shop-prod", **mapped) == "service"
    assert scope("namespace=prod", **mapped) == "none"
    workload: dict[str, Any] = {"service_workloads": {"prod/shop": "web/frontend"}}
    assert scope("namespace=web", "deployment=frontend", **workload) == "service"
    assert scope("pod=~frontend-.*", "namespace=web", **workload) == "service"
    assert scope("namespace=web", "deployment=other", **workload) == "none"
    home: dict[str, Any] = {"alert_home_labels": {"cluster": "eu-1"}}
    assert scope("cluster=eu-1", **home) == "service"
    assert scope("cluster=us-1", "service=shop", **home) == "none"
    there = ServiceKey(environment="prod--checkout", service="shop")
    assert scope("environment=prod", "namespace=checkout", "service=shop", key=there) == "service"
    assert scope("environment=prod", "namespace=checkout", "service=shop") == "none"


# ------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("shop|cart", "shop", True),
        ("shop|cart", "shopping", False),
        ("(?i)SHOP", "shop", True),
        ("(shop|cart)-(api|web)", "cart-web", True),
        ("shop-[a-z]{2,4}", "shop-api", True),
        ("a.*|b.*|c.*|d.*|e.*", "shop", False),
        ("shop(-api)?", "shop", True),
    ],
)
def test_expressions_are_read_as_alertmanager_reads_them(pattern: str, text: str, expected: bool) -> None:
    """Anchored at both ends, and its negation the opposite."""
    assert Matcher(name="service", value=pattern, is_regex=True).matches(text) is expected
    assert Matcher(name="service", value=pattern, is_regex=True, is_equal=False).matches(text) is not expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(?:a{1,50}){1,50}b",
        "(a|a)" * 40 + "b",
        "a?" * 60 + "b",
        ".*" * 12 + "b",
        "a" * 3_000,
        r"(a)\1",
        "(?=a)b",
        "[",
        r"\pL+",
    ],
)
def test_a_pattern_that_cannot_be_evaluated_counts_as_matching(pattern: str) -> None:
    """It is never run, whatever it would cost; the safe side is the silence."""
    text = "a" * 63
    assert Matcher(name="service", value=pattern, is_regex=True).matches(text)
    assert Matcher(name="service", value=pattern, is_regex=True, is_equal=False).matches(text)


def test_ordinary_patterns_are_within_the_bound() -> None:
    """Thirty names in one group, and three wildcards in a row."""
    names = "|".join(f"service-{number}" for number in range(30))
    assert _steps(f"^({names})$", 63) <= MOST_STEPS
    assert _steps(".*shop.*api.*", 63) <= MOST_STEPS


# ------------------------------------------------------------ what is left of the reasons


def reason(kind: ReasonKind, said: str) -> Reason:
    return Reason(
        trigger=Trigger.HIGH_ERROR_RATE, kind=kind, subject=said, source="x", said=said, last_true_at=NOW
    )


REASONS = (
    reason(ReasonKind.ALERT, "the alert HighErrorRate"),
    reason(ReasonKind.ALERT, "the alert HighLatency"),
    reason(ReasonKind.OWN_MEASUREMENT, "the measured error rate of 40.0%"),
)


def left(*silencings: Silencing, at: datetime = NOW) -> list[str]:
    found, _ = silenced(REASONS, silencings, at)
    return [one.said for one in found if one.withdrawn is None]


def meant(*conditions: str, until: float = 1) -> Silencing:
    found = silencing(silence(*conditions, until=until), KEY, settings())
    assert found is not None
    return found


def test_a_silenced_service_has_no_reason_and_a_silenced_alert_is_none() -> None:
    """Until the silence ends, and said with who, until when and why."""
    assert left(meant("service=shop")) == []
    assert left(meant("alertname=HighErrorRate")) == [REASONS[1].said, REASONS[2].said]
    assert left(meant("service=shop", "severity=info")) == [REASONS[2].said]
    assert len(left(meant("service=shop"), at=NOW + timedelta(hours=1))) == 3
    assert len(left(meant("service=shop"), at=NOW - timedelta(hours=2))) == 3
    found, used = silenced(REASONS, [meant("service=shop")], NOW)
    over = found[0].withdrawn
    assert over is not None
    assert "silenced by ann until 2026-02-20 18:00:00 UTC (migration)" in over.said
    assert [one.silence.id for one in used] == ["s1"]


PAGED = {
    "alertname": "HighErrorRate",
    "namespace": "prod",
    "service": "shop",
    "severity": "page",
    "route": "/pay",
}
INFO = {**PAGED, "alertname": "SlowStart", "severity": "info"}


def labelled(labels: dict[str, str]) -> Reason:
    """An alert whose labels are kept with it."""
    said = f"the alert {labels['alertname']}"
    return replace(reason(ReasonKind.ALERT, said), labels=tuple(sorted(labels.items())))


@pytest.mark.parametrize(
    ("conditions", "left_over"),
    [
        (["alertname=HighErrorRate"], ["SlowStart"]),
        (["alertname=HighErrorRate", "severity=info"], ["HighErrorRate", "SlowStart"]),
        (["service=shop", "severity=info"], ["HighErrorRate"]),
        (["severity=~page|critical"], ["SlowStart"]),
        (["severity!=page"], ["HighErrorRate"]),
        (["alertname=~High.*", "route=/pay", "team="], ["SlowStart"]),
        (["alertname=HighErrorRate", "team=web"], ["HighErrorRate", "SlowStart"]),
        (["namespace=staging", "severity=page"], ["HighErrorRate", "SlowStart"]),
        (["service=cart"], ["HighErrorRate", "SlowStart"]),
        (["service=shop"], []),
    ],
)
def test_a_silence_means_the_alerts_whose_labels_it_matches(
    conditions: list[str], left_over: list[str]
) -> None:
    """All labels count, as in Alertmanager; another alert of the service stays a reason."""
    found = silencing(silence(*conditions), KEY, settings())
    one = found or Silencing(silence=silence(*conditions), labels_only=True)
    after, used = silenced((labelled(PAGED), labelled(INFO)), [one], NOW)
    assert [each.said.removeprefix("the alert ") for each in after if each.withdrawn is None] == left_over
    assert bool(used) is (len(left_over) < 2)


async def test_silences_that_do_not_speak_of_the_service_are_matched_with_its_alerts() -> None:
    """The source leaves them in: only the labels of an alert say whether it is meant."""
    severity = [{"name": "severity", "value": "page", "isRegex": False, "isEqual": True}]
    async with loopback(reply(200, json.dumps([listed(matchers=severity)]))) as server:
        source = AlertmanagerSilences.from_settings(settings(alertmanager_url=server.url))
        found = await source.concerning(KEY, NOW)
        await source.aclose()
    left_over, _ = silenced((labelled(PAGED), labelled(INFO), *REASONS), found, NOW)
    assert [one.withdrawn is None for one in left_over] == [False, True, False, False, True]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["service=shop"], True),
        (["alertname=HighErrorRate"], True),
        (["alertname=HighErrorRate", "service=shop"], True),
        (["alertname=~High.*", "namespace=prod"], True),
        (["alertname=DiskFull"], False),
        (["alertname=DiskFull", "team=web"], False),
        (["alertname=DiskFull", "service=cart", "namespace=staging"], False),
        (["service=cart", "namespace=staging"], None),
        (["service=cart"], None),
        (["service=~cart|basket"], None),
        (["service!=shop"], None),
        (["namespace=staging"], None),
        (["namespace=staging", "severity=page"], None),
        (["environment=staging", "alertname=HighErrorRate"], None),
        (["team=web"], None),
        (["severity=page"], None),
        (["alertname=HighErrorRate", "severity=page"], None),
        (["service=shop", "severity=page"], None),
        (["deployment=shop-api"], None),
        (["pod=cart-7d9c5b8f6d-bcd2f"], None),
        (["service=kube-state-metrics"], None),
        (["cluster=west"], None),
        (["cluster=west", "alertname=DiskFull"], False),
    ],
)
async def test_an_alert_without_its_labels_is_silenced_where_that_can_be_shown(
    conditions: list[str], expected: bool | None
) -> None:
    """By its name, its service and its place; where another label decides, it is not known."""
    one = silence(*conditions)
    listing = [
        listed(
            matchers=[
                {"name": m.name, "value": m.value, "isRegex": m.is_regex, "isEqual": m.is_equal}
                for m in one.matchers
            ]
        )
    ]
    async with loopback(reply(200, json.dumps(listing))) as server:
        source = AlertmanagerSilences.from_settings(settings(alertmanager_url=server.url))
        (found,) = await source.concerning(KEY, NOW)
        await source.aclose()
    assert found.covers(REASONS[0]) is expected
    (after,), used = silenced(REASONS[:1], [found], NOW)
    assert (after.withdrawn is None) is (expected is False)
    assert bool(used) is (expected is True)
    if expected is None:
        assert after.withdrawn is not None
        assert "may be silenced by ann until" in after.withdrawn.said
        assert "its labels were not kept" in after.withdrawn.said


@pytest.mark.parametrize("minutes", [-4, 4])
async def test_a_silence_is_in_force_by_the_clock_of_its_source(minutes: int) -> None:
    """Set a moment ago by a clock that is ahead of the agent's, or about to end by one that is behind."""
    now = NOW - timedelta(hours=1) if minutes < 0 else NOW + timedelta(hours=1)
    async with loopback(reply(200, json.dumps([listed()]))) as server:
        source = AlertmanagerSilences.from_settings(settings(alertmanager_url=server.url))
        (found,) = await source.concerning(KEY, now + timedelta(minutes=minutes))
        await source.aclose()
    assert found.silence.active(now + timedelta(minutes=minutes))


FORMS: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"namespace": "prod", "service": "shop", "app": "suite", "job": "shop-metrics"}, {}),
    (
        {
            "namespace": "monitoring",
            "service": "kube-state-metrics",
            "job": "kube-state-metrics",
            "exported_namespace": "prod",
            "deployment": "shop",
        },
        {},
    ),
    ({"namespace": "web", "service": "cart", "exported_namespace": "prod", "exported_service": "shop"}, {}),
    (
        {
            "namespace": "istio-system",
            "service": "istiod",
            "destination_service_name": "shop",
            "destination_workload_namespace": "prod",
        },
        {},
    ),
    (
        {
            "environment": "web",
            "exported_environment": "prod",
            "namespace": "prod",
            "service": "shop",
            "pod": "cart-7d9c5b8f6d-bcd2f",
        },
        {},
    ),
    ({"namespace": "prod", "service": "shop"}, {"environment_namespaces": {"prod": "shop-ns"}}),
    (
        {"namespace": "shop-ns", "service": "cart", "deployment": "shop-web"},
        {"service_workloads": {"prod/shop": "shop-ns/shop-web"}},
    ),
    (
        {"namespace": "shop-ns", "service": "cart", "statefulset": "shop-db"},
        {"service_workloads": {"prod/shop": "shop-ns/statefulset/shop-db"}},
    ),
    ({"namespace": "prod", "daemonset": "shop"}, {}),
    ({"namespace": "prod", "service": "shop", "cluster": "east"}, {"alert_home_labels": {"cluster": "east"}}),
]


@pytest.mark.parametrize(("labels", "changes"), FORMS)
@pytest.mark.parametrize("conditions", [1, 2])
def test_no_silence_of_an_alert_is_left_out_because_its_labels_were_lost(
    labels: dict[str, str], changes: dict[str, Any], conditions: int
) -> None:
    """Whatever form they had: each silence that means the alert by its labels still may mean it."""
    own = settings(**changes)
    assert service_of(labels, own, None) == KEY
    known = labelled({"alertname": "HighErrorRate", "severity": "page", **labels})
    lost = replace(known, labels=None)
    for names in combinations(dict(known.labels or ()), conditions):
        one = silence(*(f"{name}={dict(known.labels or ())[name]}" for name in names))
        found = silencing(one, KEY, own) or Silencing(
            silence=one, labels_only=True, elsewhere=elsewhere(one, own)
        )
        assert found.covers(known) is True
        assert found.covers(lost) is not False, names


def test_a_silence_of_another_cluster_means_no_alert_of_this_one() -> None:
    """Where ALERT_HOME_LABELS names the cluster: an alert of another one is mapped to no service."""
    own = settings(alert_home_labels={"cluster": "east"})
    assert elsewhere(silence("cluster=west", "severity=page"), own)
    assert elsewhere(silence("cluster!~east|"), own)
    assert not elsewhere(silence("cluster!=west"), own)
    assert not elsewhere(silence("cluster=~west|"), own), "an alert without the label is meant"
    assert not elsewhere(silence("cluster=west"), settings())


def test_a_name_that_was_cut_shows_no_silence_of_one_alert() -> None:
    """What follows is not known, so the silence may mean it."""
    cut = reason(ReasonKind.ALERT, "the alert " + "a" * 199 + "…")
    assert meant("alertname=~a+b").covers(cut) is None
    assert meant("service=shop").covers(cut) is True


def test_only_where_every_alert_that_fires_is_muted_the_incident_is_muted() -> None:
    """By silences or by their sender; a silence that may mean one of them is not enough."""
    errors, latency = REASONS[:2]
    suppressed = replace(latency, withdrawn=Withdrawal(at=NOW, by="x", said="suppressed", muted=True))
    named = meant("alertname=HighErrorRate")
    assert muting((errors,), [named], NOW).silencings == (named,)
    assert muting((errors, suppressed), [named], NOW).suppressed == (suppressed,)
    assert not muting((errors, latency), [named], NOW)
    burn = replace(errors, said=f"{ALERT_WORDS}{BURN_ALERT}", source=POLLED, labels=None)
    assert muting((errors, burn), [named], NOW).silencings == (named,), (
        "people cannot silence the agent's own"
    )
    assert not muting((burn,), [named], NOW)
    assert not muting((errors,), [meant("service=shop", "severity=page")], NOW)
    assert not muting((errors,), [named], NOW + timedelta(hours=1))
    assert not muting((), [named], NOW)
    assert not muting((replace(suppressed, merged=MergedAlerts()),), [named], NOW)
    assert muting((errors, latency), [meant("service=shop")], NOW)


def test_all_labels_of_a_delivered_alert_are_kept_with_the_reason() -> None:
    """Through a repeat as well; labels beyond the bound are not kept, and the name alone counts."""

    def delivered(**more: str) -> Reason:
        alert = {"status": "firing", "labels": {**PAGED, **more}, "startsAt": "2026-02-20T16:00:00Z"}
        trigger = settings(alert_triggers={"HighErrorRate": "high_error_rate"})
        (signal,) = alerts_to_signals({"alerts": [alert]}, settings=trigger, received_at=NOW).signals
        (known,) = repeated(remember_signal((), signal), signal)[0]
        return known

    assert delivered(team="web").labels == tuple(sorted({**PAGED, "team": "web"}.items()))
    large = delivered(team="w" * 3_000)
    assert large.labels is None
    named = [meant("alertname=HighErrorRate")]
    assert [one.withdrawn is None for one in silenced((large,), named, NOW)[0]] == [False]


def test_a_silence_is_no_recovery() -> None:
    """A muted reason does not count as withdrawn."""
    triggers = (Trigger.HIGH_ERROR_RATE,)
    assert not all_withdrawn(silenced(REASONS, [meant("service=shop")], NOW)[0], triggers)
    assert not all_withdrawn(unreadable(REASONS, "403", NOW), triggers)
    assert all(one.withdrawn is not None for one in unreadable(REASONS, "403", NOW))


# ------------------------------------------------------------ the source


def listed(**changes: object) -> dict[str, object]:
    """One silence as Alertmanager lists it."""
    return {
        "id": "s1",
        "status": {"state": "active"},
        "updatedAt": "2026-02-20T16:00:00.000Z",
        "startsAt": "2026-02-20T16:00:00.000Z",
        "endsAt": "2026-02-20T18:00:00.000Z",
        "createdBy": "ann",
        "comment": "migration",
        "matchers": [{"name": "service", "value": "shop", "isRegex": False, "isEqual": True}],
        **changes,
    }


async def test_only_silences_in_force_count() -> None:
    """Neither expired nor pending ones, whatever their times say; the token is sent."""
    answer = [
        listed(),
        listed(id="s2", status={"state": "expired"}),
        listed(id="s3", status={"state": "pending"}),
        listed(id="s4", endsAt="2026-02-20T16:59:00Z"),
    ]
    async with loopback(reply(200, json.dumps(answer))) as server:
        source = AlertmanagerSilences.from_settings(
            settings(alertmanager_url=server.url, alertmanager_api_token="t0ken-of-ann")
        )
        found = await source.concerning(KEY, NOW)
        await source.aclose()
    assert [one.silence.id for one in found] == ["s1", "s4"]
    assert [(r.method, r.path) for r in server.requests] == [("GET", "/api/v2/silences")]
    assert server.requests[0].headers["authorization"] == "Bearer t0ken-of-ann"


def test_an_alert_that_its_sender_suppressed_is_no_reason() -> None:
    """Recorded as suppressed: neither firing nor resolved."""
    payload = {
        "alerts": [
            {
                "status": "suppressed",
                "labels": {"alertname": "HighErrorRate", "service": "shop", "namespace": "prod"},
                "startsAt": "2026-02-20T16:00:00Z",
                "fingerprint": "f1",
            }
        ]
    }
    (signal,) = alerts_to_signals(payload, settings=settings(), received_at=NOW).signals
    assert (signal.payload.suppressed, signal.payload.firing) == (True, False)  # type: ignore[union-attr]  # an alert


def test_a_repeated_suppressed_delivery_is_no_resolution() -> None:
    """However often it is delivered; it mutes again an alert that fired in between."""
    firing = Alert(
        name="HighErrorRate", firing=True, fingerprint="f1", starts_at=NOW, trigger=Trigger.HIGH_ERROR_RATE
    )
    muted = replace(firing, firing=False, suppressed=True)
    known: tuple[Reason, ...] = ()
    for number, alert in enumerate((firing, muted, muted, firing, muted)):
        at = NOW + timedelta(minutes=number)
        signal = new_signal(
            key=KEY,
            source="alertmanager",
            observed_at=NOW,
            received_at=at,
            payload=alert,
            stale_after=timedelta.max,
        )
        known = remember_signal(known, signal) if number < 2 else repeated(known, signal)[0]
        over = known[0].withdrawn
        assert (over is None) is alert.firing
        assert over is None or over.muted


def test_a_silence_of_a_storm_of_alerts_is_shown_by_the_labels_that_all_of_them_have() -> None:
    """Of the merged ones only these are known; another label, or one that differs, shows nothing."""
    known: tuple[Reason, ...] = ()
    for number in range(ALERTS_KEPT + 8):
        labels = (("alertname", "HighErrorRate"), ("pod", f"shop-{number}"), ("severity", "page"))
        one = Alert(
            name="HighErrorRate",
            firing=True,
            fingerprint=f"f{number}",
            starts_at=NOW,
            trigger=Trigger.HIGH_ERROR_RATE,
            labels=labels,
        )
        sent = new_signal(
            key=KEY,
            source="alertmanager",
            observed_at=NOW,
            received_at=NOW,
            payload=one,
            stale_after=timedelta.max,
        )
        known = remember_signal(known, sent)
    firing = firing_alerts(known, (Trigger.HIGH_ERROR_RATE,), NOW)
    assert len(firing) == ALERTS_KEPT + 1

    def about(*conditions: str) -> Silencing:
        return Silencing(silence=silence(*conditions), labels_only=True)

    named = about("alertname=HighErrorRate", "severity=~page|critical")
    assert muting(firing, [named], NOW).silencings == (named,)
    (short,) = [one for one in firing if one.merged is not None]
    assert about("alertname=HighErrorRate", "pod=shop-1").covers(short) is None
    assert about("alertname=HighErrorRate", "team=web").covers(short) is None
    assert about("alertname=HighErrorRate", "severity=info").covers(short) is False
    assert short.merged is not None
    unlabelled = replace(short, merged=replace(short.merged, labels=(("alertname", "HighErrorRate"),)))
    assert meant("alertname=HighErrorRate", "service=shop").covers(unlabelled) is True
    assert meant("alertname=HighErrorRate", "severity=page").covers(unlabelled) is None
    assert meant("alertname=DiskFull", "service=shop").covers(unlabelled) is False


SECRET_PARTS = [
    "https://shop.example/health?full=1",
    "https://ann:hunter22@shop.example/health",
    "password=hunter22",
]


@pytest.mark.parametrize("value", SECRET_PARTS)
@pytest.mark.parametrize(("operator", "expected"), [("=", True), ("!=", False), ("=~", None), ("!~", None)])
def test_a_label_of_which_a_part_is_not_kept_is_matched_by_what_is_left(
    value: str, operator: str, expected: bool | None
) -> None:
    """By a value the alert is meant; whether a pattern means it is not known, so it may be silenced."""
    alert = {"status": "firing", "labels": {**PAGED, "at": value}, "startsAt": "2026-02-20T16:00:00Z"}
    trigger = settings(alert_triggers={"HighErrorRate": "high_error_rate"})
    (signal,) = alerts_to_signals({"alerts": [alert]}, settings=trigger, received_at=NOW).signals
    (known,) = remember_signal((), signal)
    assert "hunter22" not in str(known.labels)
    assert "full=1" not in str(known.labels)
    for labels_only in (True, False):
        for service in ("shop", "cart"):
            one = silence(f"service={service}", f"at{operator}{value}")
            found = Silencing(silence=one, labels_only=labels_only, narrowed=True).covers(known)
            assert found is (expected if service == "shop" else False)
    assert Silencing(silence=silence("at=~.+"), labels_only=True).covers(known) is True
    assert (
        Silencing(silence=silence("at=https://shop.example/other"), labels_only=True).covers(known) is False
    )


def test_a_label_kept_by_an_older_version_may_have_been_longer() -> None:
    """It had no sign that a part was taken out."""
    known = labelled({**PAGED, "at": "https://shop.example/health"})
    one = Silencing(silence=silence("at=https://shop.example/health?full=1"), labels_only=True)
    assert one.covers(known) is None
    assert (
        Silencing(silence=silence("at=https://shop.example/health"), labels_only=True).covers(known) is True
    )


@pytest.mark.parametrize("firing", [0, 1])
def test_merged_alerts_that_are_suppressed_by_their_sender_are_muted(firing: int) -> None:
    """The incident waits, unless one of them fires; what ends is no longer counted."""
    number = ALERTS_KEPT + 6
    known: tuple[Reason, ...] = ()

    def reported(known: tuple[Reason, ...], seconds: int, ids: range, **how: bool) -> tuple[Reason, ...]:
        when = NOW + timedelta(seconds=seconds)
        for one in ids:
            payload = Alert(
                name="HighErrorRate",
                fingerprint=f"f{one}",
                starts_at=NOW,
                trigger=Trigger.HIGH_ERROR_RATE,
                **{"firing": False, **how},  # type: ignore[arg-type]  # flags by name
            )
            known = remember_signal(
                known,
                new_signal(
                    key=KEY,
                    source="alertmanager",
                    observed_at=when,
                    received_at=when,
                    payload=payload,
                    stale_after=timedelta.max,
                ),
            )
        return known

    known = reported(known, 0, range(number), firing=True)
    known = reported(known, 1, range(firing, number), suppressed=True)
    now = NOW + timedelta(seconds=9)

    def muted(known: tuple[Reason, ...]) -> bool:
        return bool(muting(firing_alerts(known, (Trigger.HIGH_ERROR_RATE,), now), [], now))

    assert muted(known) is (not firing)
    known = reported(known, 2, range(firing, number), suppressed=True)
    assert muted(known) is (not firing)
    assert not muted(reported(known, 3, range(5, 6), firing=True))
    for one in range(number):
        known = reported(known, 3, range(one, one + 1))
    assert firing_alerts(known, (Trigger.HIGH_ERROR_RATE,), now) == ()
