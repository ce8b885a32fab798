"""The ranking of root causes over generated systems: names, order and units do not matter."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.localisation.deviation import normal_range
from app.agent.localisation.metric_kinds import MetricKind, meaning_of
from app.agent.localisation.ranking import localise
from app.agent.localisation.system import Localisation, ObservedSystem
from tests.diagnosis_world import FAULTS, observed_system

T = TypeVar("T")

SEEDS = st.integers(0, 10_000)
KINDS = st.sampled_from(FAULTS)
STYLES = st.sampled_from(("plain", "sides"))


def scores(found: Localisation) -> dict[str, float]:
    """The scores without the noise of the order of additions."""
    return {candidate.service: round(candidate.score, 6) for candidate in found.candidates}


def renamed(system: ObservedSystem, names: dict[str, str]) -> ObservedSystem:
    """The same system under other names."""
    return replace(
        system,
        kinds={names[name]: kind for name, kind in system.kinds.items()},
        calls=[(names[a], names[b]) for a, b in system.calls],
        series={(names[name], metric): points for (name, metric), points in system.series.items()},
        normal={(names[name], metric): known for (name, metric), known in system.normal.items()},
        symptom=None
        if system.symptom is None
        else replace(system.symptom, service=names[system.symptom.service]),
        changes=[replace(change, service=names[change.service]) for change in system.changes],
    )


def rescaled(system: ObservedSystem, factors: dict[MetricKind, float]) -> ObservedSystem:
    """The same system with other units of its metrics."""

    def factor(metric: str) -> float:
        return factors.get(meaning_of(metric).kind, 1.0)

    return replace(
        system,
        series={
            key: [(at, None if value is None else value * factor(key[1])) for at, value in points]
            for key, points in system.series.items()
        },
        normal={
            key: replace(
                known,
                median=known.median * factor(key[1]),
                low=known.low * factor(key[1]),
                high=known.high * factor(key[1]),
                low_decile=known.low_decile * factor(key[1]),
                spread=known.spread * factor(key[1]),
            )
            for key, known in system.normal.items()
        },
    )


@settings(max_examples=25)
@given(seed=SEEDS, kind=KINDS, style=STYLES)
def test_the_order_of_the_input_does_not_change_the_scores(seed: int, kind: str, style: str) -> None:
    """Services, calls, series and changes are sets."""
    system, _ = observed_system(seed, kind, style)
    dice = random.Random(seed)  # noqa: S311 - a seed repeats the order

    def mixed(items: Iterable[T]) -> list[T]:
        known = list(items)
        return dice.sample(known, k=len(known))

    other = replace(
        system,
        kinds=dict(mixed(system.kinds.items())),
        calls=mixed(system.calls),
        series=dict(mixed(system.series.items())),
        changes=mixed(system.changes),
    )
    assert scores(localise(other)) == scores(localise(system))


@settings(max_examples=25)
@given(seed=SEEDS, kind=KINDS, style=STYLES)
def test_names_do_not_change_the_scores(seed: int, kind: str, style: str) -> None:
    """A ranking that remembers names is worth nothing."""
    system, _ = observed_system(seed, kind, style)
    order = random.Random(seed).sample(sorted(system.kinds), k=len(system.kinds))  # noqa: S311 - as above
    names = {name: f"renamed-{place}" for place, name in enumerate(order)}
    expected = {names[name]: score for name, score in scores(localise(system)).items()}
    assert scores(localise(renamed(system, names))) == expected


@settings(max_examples=25)
@given(
    seed=SEEDS,
    kind=KINDS,
    style=STYLES,
    latency=st.sampled_from((1e-3, 1e3)),
    requests=st.sampled_from((1 / 60, 300.0)),
    memory=st.sampled_from((1e-6, 1e6)),
)
def test_units_do_not_change_the_scores(
    seed: int, kind: str, style: str, latency: float, requests: float, memory: float
) -> None:
    """Seconds or milliseconds, requests per second or per five minutes, MiB or bytes."""
    system, _ = observed_system(seed, kind, style)
    factors = {
        MetricKind.LATENCY: latency,
        MetricKind.OUTGOING_LATENCY: latency,
        MetricKind.REQUESTS: requests,
        MetricKind.MEMORY: memory,
        MetricKind.CPU: memory,
    }
    assert scores(localise(rescaled(system, factors))) == scores(localise(system))


@settings(max_examples=25)
@given(seed=SEEDS, kind=KINDS, style=STYLES, observed=st.booleans(), calls=st.booleans())
def test_confidences_are_probabilities(seed: int, kind: str, style: str, observed: bool, calls: bool) -> None:
    """Each within 0..1, in the order of the scores, together at most 1, also without symptom and calls."""
    system, _ = observed_system(seed, kind, style)
    system = replace(
        system, symptom=system.symptom if observed else None, calls=system.calls if calls else ()
    )
    confidences = [candidate.confidence for candidate in localise(system).candidates]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0 <= confidence < 1 for confidence in confidences)
    assert sum(confidences) < 1 + 1e-9


@settings(max_examples=15)
@given(seed=SEEDS, kind=KINDS)
def test_a_quiet_service_beside_the_system_changes_no_answer(seed: int, kind: str) -> None:
    """A service that nothing calls and that behaves as usual does not become the first candidate."""
    system, _ = observed_system(seed, kind)
    quiet = ("unrelated", "latency_avg")
    wider = replace(
        system,
        kinds={**system.kinds, "unrelated": "service"},
        series={**system.series, quiet: [(system.started_at + 60.0 * k, 0.1) for k in range(4)]},
        normal={**system.normal, quiet: normal_range([0.09, 0.1, 0.11] * 20)},
    )
    assert localise(wider).candidates[0].service == localise(system).candidates[0].service


@settings(max_examples=15)
@given(seed=SEEDS)
def test_without_any_anomaly_the_answer_is_unknown(seed: int) -> None:
    """However many changes are known: nothing has to be explained."""
    system, _ = observed_system(seed, "latency")
    before = {
        key: [(at, value) for at, value in points if at < system.started_at]
        for key, points in system.series.items()
    }
    calm = replace(
        system,
        series={
            key: [*points, *((system.started_at + at, known.median) for at in (10.0, 70.0, 130.0))]
            for key, points in before.items()
            if (known := system.normal[key])
        },
        symptom=None,
    )
    assert localise(calm).unknown
