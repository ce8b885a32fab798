"""The ranking of root causes, one kind of evidence at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from app.agent.localisation.anomalies import anomalies_of
from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.deviation import SURE, deviation, normal_range
from app.agent.localisation.fault_classes import cause_of
from app.agent.localisation.metric_kinds import MEAN, MetricKind, meaning_of
from app.agent.localisation.ranking import change_strength, localise
from app.agent.localisation.service_evidence import evidence_of
from app.agent.localisation.system import (
    FaultClass,
    Localisation,
    ObservedChange,
    ObservedSymptom,
    ObservedSystem,
)
from app.agent.models import Cause

STARTED = 1_700_000_000.0
AFTER = (STARTED, STARTED + 60, STARTED + 120)
BEFORE = (STARTED - 180, STARTED - 120, STARTED - 60)

CHAIN = (("shop", "orders"), ("shop", "search"), ("orders", "database"))
USUAL: dict[str, float] = {
    "latency_avg": 0.1,
    "error_rate": 0.0,
    "requests": 50.0,
    "cpu_pct": 20.0,
    "mem_mi": 300.0,
}
LATENCY = {"shop": 0.3, "orders": 0.15, "search": 0.05, "database": 0.05}


def usual_level(service: str, metric: str) -> float:
    return LATENCY.get(service, 0.1) if metric.startswith("latency") else USUAL[metric]


def history(level: float) -> list[float | None]:
    """A hundred samples around a level, a tenth of it apart at most."""
    return [level * (1 + 0.05 * ((k * 7) % 11 - 5) / 5) for k in range(100)]


def system(
    now: Mapping[tuple[str, str], Sequence[float | None]],
    *,
    calls: Sequence[tuple[str, str]] = CHAIN,
    symptom: ObservedSymptom | None = None,
    changes: Sequence[ObservedChange] = (),
    metrics: Sequence[str] = tuple(USUAL),
    kinds: Mapping[str, str] | None = None,
) -> ObservedSystem:
    """Four services that are as usual except for the three samples of `now` since the symptom."""
    keys = [(service, metric) for service in LATENCY for metric in metrics]
    levels = {key: usual_level(*key) for key in keys}
    return ObservedSystem(
        kinds=dict.fromkeys(LATENCY, "service") | dict(kinds or {}),
        calls=calls,
        started_at=STARTED,
        series={
            key: [
                *((at, levels[key]) for at in BEFORE),
                *zip(AFTER, now.get(key, [levels[key]] * 3), strict=True),
            ]
            for key in keys
        },
        normal={key: normal_range(history(level)) for key, level in levels.items()},
        symptom=symptom,
        changes=changes,
    )


def first(found: Localisation) -> str:
    return found.candidates[0].service


def evidence(found: Localisation, service: str) -> str:
    candidate = next(c for c in found.candidates if c.service == service)
    return "; ".join((*candidate.evidence_for, "|", *candidate.evidence_against))


SLOW_SHOP = ObservedSymptom(service="shop", metric="latency")
FAILING_SHOP = ObservedSymptom(service="shop", metric="availability")


@pytest.mark.parametrize(
    ("metric", "kind", "statistic"),
    [
        ("latency_p95", MetricKind.LATENCY, 0.95),
        ("latency_p99_server", MetricKind.LATENCY, 0.99),
        ("latency_p95_client", MetricKind.OUTGOING_LATENCY, 0.95),
        ("response_time_ms", MetricKind.LATENCY, MEAN),
        ("error_rate", MetricKind.ERRORS, MEAN),
        ("availability", MetricKind.ERRORS, MEAN),
        ("failed_requests", MetricKind.ERRORS, MEAN),
        ("http_requests", MetricKind.REQUESTS, MEAN),
        ("cpu_pct", MetricKind.CPU, MEAN),
        ("memory_rss", MetricKind.MEMORY, MEAN),
        ("net_rx", MetricKind.NETWORK, MEAN),
        ("disk_io", MetricKind.DISK, MEAN),
        ("queue_length", MetricKind.QUEUE, MEAN),
        ("temperature", MetricKind.OTHER, MEAN),
    ],
)
def test_the_words_of_a_metric_say_what_it_measures(metric: str, kind: MetricKind, statistic: float) -> None:
    """Names differ between sources; the words in them are the same."""
    assert (meaning_of(metric).kind, meaning_of(metric).statistic) == (kind, statistic)


def test_a_series_inside_its_range_has_no_strength() -> None:
    """Noise is not an anomaly, however narrow the range looks at the moment."""
    found = deviation(normal_range(history(10.0)), [10.0], [(STARTED, 10.4), (STARTED + 60, 9.7)])
    assert found is not None
    assert found.strength == 0.0


def test_what_was_unusual_before_the_symptom_did_not_start_with_it() -> None:
    """A series that drifted away days ago explains no incident of today."""
    drifted = deviation(normal_range(history(10.0)), [30.0, 31.0, 29.0], [(STARTED, 30.0)] * 3)
    risen = deviation(normal_range(history(10.0)), [10.0, 10.1, 9.9], [(STARTED, 30.0)] * 3)
    assert drifted is not None
    assert risen is not None
    assert drifted.strength == 0.0
    assert risen.strength > SURE


def test_a_symptom_noticed_late_still_shows() -> None:
    """The last sample before the notice may already contain the fault."""
    late = deviation(normal_range(history(10.0)), [10.0, 10.1, 30.0], [(STARTED, 30.0)] * 3)
    assert late is not None
    assert late.strength > SURE


def test_a_long_history_gives_nearly_the_range_of_all_of_it() -> None:
    """Thinned out evenly, gaps counted in full."""
    found = normal_range([None if k % 4 == 0 else float((k * 37) % 1000) for k in range(12_000)])
    assert found.count == 800
    assert found.missing == pytest.approx(0.25)
    assert found.median == pytest.approx(500, abs=40)
    assert found.low == pytest.approx(20, abs=20)
    assert found.high == pytest.approx(980, abs=20)


def test_one_odd_sample_proves_less_than_a_lasting_change() -> None:
    """Half of the samples decide, because the longest spike is no incident yet."""
    normal = normal_range(history(10.0))
    once = deviation(normal, [10.0], [(STARTED, 30.0), (STARTED + 60, 10.0), (STARTED + 120, 10.0)])
    always = deviation(normal, [10.0], [(STARTED, 30.0)] * 3)
    assert once is not None
    assert always is not None
    assert once.strength < always.strength


def test_without_history_the_samples_before_the_symptom_are_the_reference() -> None:
    """And with neither, nothing is known about the series."""
    found = deviation(None, [10.0, 10.2, 9.9], [(STARTED, 30.0)])
    assert found is not None
    assert found.strength > 1.0
    assert deviation(None, [10.0], [(STARTED, 30.0)]) is None


def test_a_slow_callee_explains_its_callers() -> None:
    """Everything on the path is slow; the deepest service is the root cause."""
    found = localise(
        system(
            {
                ("database", "latency_avg"): [0.85] * 3,
                ("orders", "latency_avg"): [0.95] * 3,
                ("shop", "latency_avg"): [1.1] * 3,
            },
            symptom=SLOW_SHOP,
        )
    )
    assert first(found) == "database"
    assert not found.unknown
    assert "its callees explain" in evidence(found, "orders")
    assert "of the added latency of orders" in evidence(found, "database")


def test_a_slow_caller_with_quick_callees_is_the_root_cause_itself() -> None:
    """No callee explains what it added."""
    found = localise(
        system({("orders", "latency_avg"): [0.95] * 3, ("shop", "latency_avg"): [1.1] * 3}, symptom=SLOW_SHOP)
    )
    assert first(found) == "orders"
    assert found.candidates[0].fault is FaultClass.LATENCY


def test_a_slow_service_that_explains_nothing_is_not_the_root_cause() -> None:
    """Search doubled, which is a twentieth of what the shop added."""
    found = localise(
        system(
            {
                ("search", "latency_avg"): [0.1] * 3,
                ("orders", "latency_avg"): [0.95] * 3,
                ("shop", "latency_avg"): [1.15] * 3,
            },
            symptom=SLOW_SHOP,
        )
    )
    assert first(found) == "orders"


def test_errors_pass_from_callee_to_caller() -> None:
    """A quarter of the requests fails on the whole path."""
    found = localise(
        system(
            {(service, "error_rate"): [0.25] * 3 for service in ("database", "orders", "shop")},
            symptom=FAILING_SHOP,
        )
    )
    assert first(found) == "database"
    assert found.candidates[0].fault is FaultClass.ERRORS


def test_a_service_that_stopped_reporting_is_unavailable() -> None:
    """Its caller fails, and the others continue to report."""
    silent: dict[tuple[str, str], Sequence[float | None]] = {("database", m): [None] * 3 for m in USUAL}
    found = localise(
        system(
            silent | {("orders", "error_rate"): [0.9] * 3, ("shop", "error_rate"): [0.5] * 3},
            symptom=FAILING_SHOP,
        )
    )
    assert first(found) == "database"
    assert found.candidates[0].fault is FaultClass.UNAVAILABLE


def test_series_that_vanish_together_are_a_fault_of_the_telemetry() -> None:
    """Missing data is neither healthy nor unhealthy (promise 8), so the answer is unknown."""
    nothing = {(service, metric): [None] * 3 for service in LATENCY for metric in USUAL}
    found = localise(system(nothing, symptom=FAILING_SHOP))
    assert found.unknown
    assert FaultClass.UNAVAILABLE not in {candidate.fault for candidate in found.candidates}


def test_a_resource_points_at_its_own_service() -> None:
    """Processor time is local, latency passes on to the callers."""
    found = localise(
        system(
            {
                ("orders", "cpu_pct"): [95.0] * 3,
                ("orders", "latency_avg"): [0.6] * 3,
                ("shop", "latency_avg"): [0.75] * 3,
            },
            symptom=None,
        )
    )
    assert first(found) == "orders"
    assert found.candidates[0].fault is FaultClass.CPU


def test_processor_time_is_named_before_the_memory_of_waiting_requests() -> None:
    """Both are as sure as can be; memory alone is a fault of memory."""
    full = {("orders", "mem_mi"): [1500.0] * 3}
    busy = {("orders", "cpu_pct"): [95.0] * 3}
    assert localise(system(full)).candidates[0].fault is FaultClass.MEMORY
    assert localise(system(full | busy)).candidates[0].fault is FaultClass.CPU


def test_a_resource_that_rises_with_the_traffic_is_no_fault() -> None:
    """Three times the requests need three times the processor time; without them it is a fault."""
    busy = {("search", "cpu_pct"): [60.0] * 3}
    assert first(localise(system(busy))) == "search"
    assert not localise(system(busy)).unknown
    assert localise(system(busy | {("search", "requests"): [150.0] * 3})).unknown


def test_calls_that_end_while_requests_continue_point_at_the_caller() -> None:
    """Orders fails before it calls its database; only the shop reports errors."""
    found = localise(
        system(
            {("shop", "error_rate"): [0.3] * 3, ("database", "requests"): [1.0] * 3},
            symptom=FAILING_SHOP,
        )
    )
    assert "calls database far less often" in evidence(found, "orders")
    assert first(found) in {"orders", "shop"}


def test_callers_that_wait_longer_than_the_callee_works_point_at_the_network() -> None:
    """The database works as quickly as ever; its only caller and the caller's caller wait."""
    metrics = ("latency_p95_server", "latency_p95_client", "requests")
    now = {
        ("orders", "latency_p95_client"): [0.9] * 3,
        ("orders", "latency_p95_server"): [1.0] * 3,
        ("shop", "latency_p95_client"): [1.0] * 3,
        ("shop", "latency_p95_server"): [1.2] * 3,
    }
    found = localise(system(now, metrics=metrics, symptom=SLOW_SHOP))
    assert first(found) == "database"
    assert found.candidates[0].fault is FaultClass.NETWORK


def test_a_shared_store_without_a_change_is_overloaded() -> None:
    """A database has no release of its own; a change of it makes the fault one of latency."""
    slow = {
        ("database", "latency_avg"): [0.85] * 3,
        ("orders", "latency_avg"): [0.95] * 3,
        ("shop", "latency_avg"): [1.1] * 3,
    }
    kinds = {"database": "database"}
    changed = ObservedChange(service="database", kind="config", at=STARTED - 60)
    assert localise(system(slow, symptom=SLOW_SHOP, kinds=kinds)).candidates[0].fault is FaultClass.OVERLOAD
    found = localise(system(slow, symptom=SLOW_SHOP, kinds=kinds, changes=[changed]))
    assert found.candidates[0].fault is FaultClass.LATENCY


def test_a_change_just_before_the_symptom_raises_a_candidate_and_a_decoy_does_not() -> None:
    """A change elsewhere explains nothing, whenever it was."""
    slow = {("orders", "latency_avg"): [0.3] * 3, ("shop", "latency_avg"): [0.45] * 3}
    changed = ObservedChange(service="orders", kind="deploy", at=STARTED - 45)
    decoy = ObservedChange(service="search", kind="config", at=STARTED - 10)
    without = localise(system(slow, symptom=SLOW_SHOP, changes=[decoy]))
    found = localise(system(slow, symptom=SLOW_SHOP, changes=[changed, decoy]))
    assert first(without) == first(found) == "orders"
    assert found.candidates[0].confidence > without.candidates[0].confidence
    assert "a deploy change of it 45 s before the symptom" in evidence(found, "orders")


def test_the_older_a_change_the_less_it_counts() -> None:
    """An hour is as good as never, and a change after the symptom is not its cause."""
    strengths = [
        change_strength(ObservedChange(service="s", kind="deploy", at=STARTED - lag), STARTED)
        for lag in (10, 300, 600, 3600)
    ]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[-1] == 0.0
    later = ObservedChange(service="search", kind="deploy", at=STARTED + 600)
    slow = {("search", "latency_avg"): [0.5] * 3, ("shop", "latency_avg"): [0.75] * 3}
    with_later = localise(system(slow, symptom=SLOW_SHOP, changes=[later]))
    assert with_later.candidates == localise(system(slow, symptom=SLOW_SHOP)).candidates


def test_without_known_calls_the_amounts_decide() -> None:
    """What explains most of the added latency where people noticed it comes first."""
    found = localise(
        system(
            {
                ("search", "latency_avg"): [0.1] * 3,
                ("orders", "latency_avg"): [0.95] * 3,
                ("shop", "latency_avg"): [1.1] * 3,
            },
            calls=(),
            symptom=SLOW_SHOP,
        )
    )
    assert first(found) == "orders"


def test_calls_in_a_circle_end() -> None:
    """Either of two services that call each other may be the cause: the second one keeps a chance."""
    found = localise(
        system(
            {("orders", "latency_avg"): [0.9] * 3, ("search", "latency_avg"): [0.9] * 3},
            calls=(("orders", "search"), ("search", "orders"), ("shop", "orders")),
            symptom=SLOW_SHOP,
        )
    )
    assert {c.service for c in found.candidates[:2]} == {"orders", "search"}
    assert found.candidates[1].confidence > 0.05


def test_a_change_without_any_anomaly_is_no_cause() -> None:
    """Nothing has to be explained, however few services and calls are known."""
    changed = ObservedChange(service="orders", kind="deploy", at=STARTED - 10)
    assert localise(system({}, calls=(), changes=[changed])).unknown


def test_latency_that_callees_explain_is_not_the_callers_own() -> None:
    """Of the caller's strength only the unexplained share counts."""
    seen = system({("database", "latency_avg"): [0.85] * 3, ("orders", "latency_avg"): [0.95] * 3})
    graph = CallGraph(seen.kinds, seen.calls)
    found = evidence_of(anomalies_of(seen, graph.services), graph)
    assert found["orders"].latency > SURE
    assert found["orders"].own_latency < 0.1
    assert found["database"].own_latency == SURE


def test_nothing_known_is_unknown() -> None:
    """No service, no series, no calls."""
    empty = ObservedSystem(kinds={}, calls=(), started_at=STARTED, series={}, normal={})
    assert localise(empty) == Localisation(candidates=(), unknown=True)


@pytest.mark.parametrize(
    ("fault", "change", "cause"),
    [
        (FaultClass.ERRORS, "deploy", Cause.BAD_RELEASE),
        (FaultClass.LATENCY, "config", Cause.BAD_CONFIG),
        (FaultClass.CPU, None, Cause.RESOURCE_LIMIT),
        (FaultClass.OVERLOAD, None, Cause.TRAFFIC_SURGE),
        (FaultClass.ERRORS, None, Cause.UNKNOWN),
    ],
)
def test_a_fault_class_corresponds_to_a_cause(fault: FaultClass, change: str | None, cause: Cause) -> None:
    """A change that fits names the cause; measurements alone often do not."""
    assert cause_of(fault, change) is cause
