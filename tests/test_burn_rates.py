"""Error budgets of single services: when they burn too fast, and what follows from it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.evidence.baselines.learned import Baselines
from app.agent.models import BURN_ALERT, ActionName, IncidentState, SliSample
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.services.burn_rates import SLOTS, BudgetUse, BurnRate, ErrorBudget
from app.agent.services.terms import FixedServices, ServiceTerms
from app.errors import ConfigurationError
from app.settings.services import read_services, terms_in_words
from app.workers.alerts.own import ServiceAlerts
from tests.stories import KEY, messages, story

NOW = datetime(2026, 2, 20, 17, tzinfo=UTC)
FAST = BurnRate(long=timedelta(hours=1), short=timedelta(minutes=5), factor=14.4)
BUDGET = ErrorBudget(availability=0.999, burn_rates=(FAST,))
STEP = timedelta(seconds=15)


def used(*periods: tuple[float, float]) -> BudgetUse:
    """After periods of so many minutes at an error rate each, the last one until now."""
    use = BudgetUse(BUDGET)
    at = NOW - timedelta(minutes=sum(length for length, _ in periods))
    for length, errors in periods:
        for _ in range(round(length * 60 / STEP.total_seconds())):
            use.add(at, errors, 100.0)
            at += STEP
    return use


@pytest.mark.parametrize(
    ("periods", "burns"),
    [
        ([(120, 0.0), (30, 0.05)], True),
        ([(120, 0.0), (5, 0.05)], False),  # the long window has hardly any of it
        ([(120, 0.0), (30, 0.05), (10, 0.0)], False),  # it is over: the short window is clean
        ([(120, 0.012)], False),  # 12 times too fast
        ([(6, 0.5)], True),  # as the agent starts: what was not observed counts as healthy
        ([(6, 0.05)], False),
    ],
)
def test_a_budget_burns_when_both_windows_say_so(periods: list[tuple[float, float]], *, burns: bool) -> None:
    """The long window shows that it matters, the short one that it lasts."""
    found = used(*periods).burning(NOW)
    assert (found is not None) is burns
    if found is not None:
        assert "error budget of 0.1%" in found.words
        assert "over 1 h" in found.words
        assert "over 5 m (limit 14.4)" in found.words


def test_what_is_counted_is_bounded_and_in_any_order() -> None:
    """A year of samples takes as much memory as an hour; a late sample counts where it belongs."""
    use, later = used((30, 0.05)), used((30, 0.05))
    for day in range(365):
        later.add(NOW + timedelta(days=day), 0.0, 100.0)
    use.add(NOW - timedelta(minutes=20), 0.05, 100.0)
    before, after = used((30, 0.05)).burning(NOW), use.burning(NOW)
    assert before is not None
    assert after is not None
    assert after.short == pytest.approx(before.short)
    for counted in (*use._counted, *later._counted):
        assert len(counted.requests) == len(counted.failures) == SLOTS
        assert sys.getsizeof(counted.requests) + sys.getsizeof(counted.failures) < 2048
    assert later.burning(NOW + timedelta(days=364)) is None


@pytest.mark.parametrize("back", [timedelta(seconds=seconds) for seconds in (5, 60, 119, 3599, 3600, 90_000)])
def test_a_clock_that_is_set_back_ends_no_counting(back: timedelta) -> None:
    """From then on it counts by the new time, and finds the burn that goes on."""
    use = BudgetUse(BUDGET)
    use.add(NOW, 0.5, 100.0)
    at = NOW - back
    for _ in range(30 * 4):
        use.add(at, 0.5, 100.0)
        use.burning(at)
        at += STEP
    found = use.burning(at)
    assert found is not None
    assert found.short == pytest.approx(500, rel=0.3)


def test_a_burn_near_its_limit_is_one_burn() -> None:
    """It begins at the limit and ends well below it, so that figures around the limit open one incident."""
    terms = ServiceTerms(key=KEY, budget=BUDGET)
    alerts = ServiceAlerts(services=FixedServices(terms={KEY: terms}), baselines=Baselines(), every=STEP)
    told, at = [], NOW
    errors = [0.0144 * (1.1 if number // 24 % 2 else 0.95) for number in range(1600)] + [0.0] * 40
    for one in errors:
        sample = SliSample(at=at, error_rate=one, request_rate=40.0, measured=True)
        for alert in alerts.changed(KEY, sample):
            alerts.delivered(KEY, alert, at)
            told.append(alert)
        at += STEP
    assert len({alert.identity for alert in told}) == 1
    assert [alert.firing for alert in told].count(False) == 1
    assert not told[-1].firing


RATES = "burn_rates: [{long: 1h, short: 5m, factor: 14.4}]"
FILE = f"schema: 1\nservices:\n  prod/shop:\n    objectives: {{availability: 0.999, {RATES}}}\n"


@pytest.mark.parametrize(
    ("written", "instead", "found"),
    [
        ("availability: 0.999, ", "", r":3:3: .*burn_rates need an availability"),
        ("short: 5m", "short: 1m", "at least a thirtieth"),
        ("short: 5m", "short: 1h", "the short window must be shorter"),
        ("long: 1h", "long: 4d", "between 5 minutes and 3 days"),
        ("long: 1h", "long: 1 hour", ":4:.*long"),
        ("factor: 14.4", "factor: 2000", "no error rate can be 2000 times"),
        ("0.999", "1.0", ":4:.*availability"),
    ],
)
def test_a_burn_rate_that_says_nothing_is_a_mistake(
    tmp_path: Path, written: str, instead: str, found: str
) -> None:
    """The first mistake is reported with its place; a valid file is shown in words."""
    file = tmp_path / "services.yaml"
    file.write_text(FILE, encoding="utf-8")
    (terms,) = read_services(file).values()
    assert terms.budget == BUDGET
    assert "burn rate below 14.4 over 1 h and 5 m" in terms_in_words(terms)
    file.write_text(FILE.replace(written, instead), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=found):
        read_services(file)


def services_file(directory: Path, terms: str) -> Path:
    """A file with these terms of the service."""
    file = directory / "services.yaml"
    file.write_text(f"schema: 1\nservices:\n  {KEY.environment}/{KEY.service}: {terms}\n", encoding="utf-8")
    return file


async def test_a_burning_service_is_a_case_for_a_person_until_a_threshold_is_broken(tmp_path: Path) -> None:
    """Errors within the threshold use up the budget: an incident with the figures, and no action."""
    rates = "burn_rates: [{long: 15m, short: 1m, factor: 4}]"
    terms = f"{{objectives: {{max_error_rate: 0.2, availability: 0.995, {rates}}}}}"
    file = services_file(tmp_path, terms)
    changes: dict[str, Any] = {"dry_run": False, "allow_high_risk_actions": True, "services_file": file}
    async with story(tmp_path, **changes) as stage:
        stage.deploy()
        await stage.live(120)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.15"})
        record = await stage.live_until_ended()
        text = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, text
        assert "error budget of 0.5% used up" in text
        assert not [i for i in record.intents if i.action.name is not ActionName.NOTIFY], text
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0"})
        await stage.live(200)
        levels = await stage.agent.store.signals.levels(KEY)
        assert levels is not None
        assert levels.resolved_alerts, "the end of the burn was not reported"


async def test_a_restarted_agent_ends_the_alert_of_the_one_before(tmp_path: Path) -> None:
    """Once it has observed the short window: not at its first healthy look, and not a day later."""
    rates = "burn_rates: [{long: 15m, short: 1m, factor: 4}]"
    terms = f"{{objectives: {{max_error_rate: 0.2, availability: 0.995, {rates}}}}}"
    file = services_file(tmp_path, terms)
    async with story(tmp_path, services_file=file) as stage:
        stage.deploy()
        await stage.live(120)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.15"})
        await stage.live_until_ended()
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0"})
        await stage.restart()
        firing = []
        for _ in range(12):
            await stage.live(20)
            levels = await stage.agent.store.signals.levels(KEY)
            assert levels is not None
            firing.append(any(one.withdrawn is None for one in levels.reasons))
        assert firing[1]
        assert not firing[-1]


async def test_a_budget_that_was_used_up_keeps_no_action_from_having_helped(tmp_path: Path) -> None:
    """A window stays above its limit for long after the errors ended: that is no sign of the service."""
    rates = "burn_rates: [{long: 1h, short: 30m, factor: 0.5}]"
    terms = f"{{objectives: {{availability: 0.995, {rates}}}}}"
    file = services_file(tmp_path, terms)
    changes: dict[str, Any] = {"dry_run": False, "allow_high_risk_actions": True, "services_file": file}
    async with story(tmp_path, **changes) as stage:
        stage.deploy()
        await stage.live(120)
        stage.world.release("prod", KEY.service, "shop:2-errors")
        record = await stage.live_until_ended()
        text = messages(record.timeline)
        assert BURN_ALERT in text
        assert record.incident.state is IncidentState.RECOVERED, text
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK]


async def test_a_broken_objective_after_a_burn_is_another_incident(tmp_path: Path) -> None:
    """A burn that a person was asked about, and that goes on, hides no release that fails."""
    rates = "burn_rates: [{long: 15m, short: 1m, factor: 4}]"
    terms = f"{{objectives: {{max_error_rate: 0.2, availability: 0.995, {rates}}}}}"
    file = services_file(tmp_path, terms)
    async with story(tmp_path, services_file=file) as stage:
        stage.deploy()
        await stage.live(120)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.15"})
        first = (await stage.live_until_ended()).incident
        assert first.state is IncidentState.ESCALATED
        await stage.live(60)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.6"})
        await stage.live_until(lambda one: one.incident.id != first.id and one.incident.state.closed, 600)
        await stage.live(60)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.1"})
        await stage.live(120)
        stage.world.set_env("prod", KEY.service, {"FAIL_RATIO": "0.6"})
        await stage.live(300)
        found = await stage.agent.store.incidents.find(IncidentFilter(), limit=9, cursor=None)
        assert len(found.items) == 2, "after an incident of a breach the same breach stays quiet"
