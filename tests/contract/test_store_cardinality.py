"""How many services intake remembers is bounded, and a report beyond the bound is answered so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from app.agent.ids import ServiceKey
from app.agent.intake import IntakeRules
from app.agent.models import DispositionKind, MetricSample, Signal
from app.agent.ports.store import Store
from app.agent.slo import SloThresholds
from tests.contract.store_values import key, signal
from tests.contract.test_store_queue import serves

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

MOST = 3
RULES = IntakeRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(0),
        reopen_after=timedelta(hours=1),
    ),
    max_services=MOST,
)


def _sample(of: ServiceKey, error_rate: float = 0.01) -> Signal:
    return signal(MetricSample(error_rate=error_rate), key=of)


async def _answers(store: Store, *signals: Signal) -> list[str]:
    found = await store.signals.accept(signals, RULES, again=RULES.again, dry_run=True)
    return [f"{one.disposition.kind}: {one.disposition.reason}" for one in found]


async def test_services_beyond_the_limit_are_ignored_with_the_reason(store: Store) -> None:
    """Also within one delivery; those on record, known from the cluster or watched by the agent go on."""
    beyond = f"ignored: not evaluated: {MOST} services are on record, the limit of MAX_SERVICES"
    first = await _answers(store, *(_sample(key(number)) for number in range(MOST + 1)))
    assert first == ["ignored: within the SLO"] * MOST + [beyond]
    assert await _answers(store, _sample(key(MOST), 0.5)) == [beyond]
    assert await store.signals.levels(key(MOST)) is None
    assert await store.incidents.all_open() == ()
    assert await _answers(store, _sample(key(0), 0.5)) == ["opened: high_error_rate"]
    await serves(store, key(20))
    assert await _answers(store, _sample(key(20), 0.5)) == ["opened: high_error_rate"]
    own = replace(_sample(key(30), 0.5), source="prometheus")
    assert (await _answers(store, own))[0].startswith(DispositionKind.OPENED)
