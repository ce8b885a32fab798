"""Every number that the analytics page shows, computed from whole records one by one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise

from app.agent.analytics.report import StatsFilter
from app.agent.analytics.times import BUCKET_SECONDS
from app.agent.evidence.format import share
from app.agent.models import IncidentState
from tests import statistics_oracle as oracle
from tests.api.harness import Harness
from tests.contract.store_values import NOW
from tests.contract.test_store_statistics import history
from tests.statistics_oracle import Known

SINCE, UNTIL = NOW - timedelta(days=1), NOW + timedelta(days=60)


class Tables(HTMLParser):
    """The tables of a page by caption: the texts of their rows, cell by cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._caption, self._rows, self._in = "", list[list[str]](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in ("caption", "td", "th"):
            self._in = tag
            if tag == "caption":
                self._caption = ""
            else:
                self._rows[-1].append("")
        elif tag == "tr":
            self._rows.append([])
        elif tag == "table":
            self._rows = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "td", "th"):
            self._in = ""
        elif tag == "table":
            self.found[self._caption] = [row for row in self._rows if row][1:]

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            self._caption += data
        elif self._in:
            self._rows[-1][-1] = " ".join(f"{self._rows[-1][-1]} {data}".split())


def _time(seconds: float | None) -> str:
    """A length of time as the pages write it."""
    if seconds is None:
        return "no data"
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600, whole // 60, whole % 60
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} m {rest} s" if rest else f"{minutes} m"
    if hours < 48:
        return f"{hours} h {minutes % 60} m" if minutes % 60 else f"{hours} h"
    return f"{days} days"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(hits: int, of: int) -> str:
    low, high = oracle.wilson(hits, of) if of else (0.0, 0.0)
    return f"{share(hits / of)} ({share(low)} to {share(high)})"


def test_every_number_of_the_page_agrees_with_the_records(api: Harness) -> None:
    """Tiles, trend, percentiles, bars, causes, services, runbooks, approvals, budget, decisions, reasons."""
    everything = api.run(history(api.container.store, 7, 60))
    where = StatsFilter(since=SINCE, until=UNTIL)
    chosen = oracle.opened_within(where, everything)
    asked = f"since={SINCE:%Y-%m-%dT%H:%M:%SZ}&until={UNTIL:%Y-%m-%dT%H:%M:%SZ}&interval=day"
    page = api.get(f"/dashboard/analytics?{asked}").text
    tables = Tables(page).found
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    _tiles_agree(words, where, chosen)
    _trend_agrees(tables["Incidents by day, with mean times"], chosen)
    for kind, title in (("detect", "detect"), ("acknowledge", "acknowledge"), ("restore", "restore")):
        _spread_agrees(tables, f"time to {title}", oracle.durations(kind, chosen))
    causes = Counter(oracle.cause_of(one) or "not diagnosed" for one in chosen)
    assert {row[0]: int(row[-1]) for row in tables["Incidents by cause"]} == {
        cause.replace("_", " "): number for cause, number in causes.items()
    }
    _services_agree(tables["Incidents by service"], chosen)
    _runbooks_agree(tables, chosen)
    _decisions_agree(tables, where, everything)
    _approvals_and_budget_agree(words, where, everything)


def _tiles_agree(words: str, where: StatsFilter, chosen: Sequence[Known]) -> None:
    states = oracle.states(chosen)
    active = sum(one.record.incident.closed_at is None for one in chosen)
    alone = states[IncidentState.RECOVERED_WITHOUT_ACTION]
    healed = [one for one in chosen if one.record.incident.state is IncidentState.RECOVERED]
    manual = where.manual.total_seconds()
    saved = sum(max(0.0, manual - took) for took in oracle.durations("restore", healed))
    restore = oracle.durations("restore", chosen)
    for said in (
        f"Incidents {len(chosen)} {active} in progress",
        f"Recovered {len(healed)} {states[IncidentState.ESCALATED]} escalated, "
        f"{states[IncidentState.RESOLVED_BY_HAND]} resolved by hand",
        f"Mean time to restore {_time(_mean(restore))} median {_time(oracle.percentile(restore, 50))}",
        f"False alarms {alone} recovered without an action, {_interval(alone, len(chosen) - active)}",
        f"Time saved {_time(saved)} {len(healed)} healed. A person would have needed 30 minutes",
    ):
        assert said in words, (said, words[words.find("Incidents ") :][:900])


def _trend_agrees(rows: Sequence[Sequence[str]], chosen: Sequence[Known]) -> None:
    days: dict[str, list[Known]] = {}
    for one in chosen:
        days.setdefault(f"{one.record.incident.opened_at:%Y-%m-%d}", []).append(one)
    assert [row[0] for row in rows] == sorted(days)
    for start, *shown in rows:
        mine = days[start]
        states = oracle.states(mine)
        numbers = [
            len(mine),
            states[IncidentState.RECOVERED],
            states[IncidentState.RECOVERED_WITHOUT_ACTION],
            states[IncidentState.ESCALATED],
        ]
        means = [_time(_mean(oracle.durations(kind, mine))) for kind in ("detect", "acknowledge", "restore")]
        assert shown == [*map(str, numbers), *means], start


def _spread_agrees(tables: dict[str, list[list[str]]], title: str, values: Sequence[int]) -> None:
    [shown] = tables[f"Percentiles of {title}"]
    percentiles = [oracle.percentile(values, percent) for percent in (50, 90, 95, 99)]
    assert shown == [_time(each) for each in (_mean(values), *percentiles, max(values))]
    edges = [0, *BUCKET_SECONDS, None]
    inside: list[Callable[[int], bool]] = [
        lambda value, low=low, high=high: low <= value and (high is None or value < high)  # type: ignore[misc]
        for low, high in pairwise(edges)
    ]
    assert [int(row[-1]) for row in tables[f"Distribution of {title}"]] == [
        sum(map(each, values)) for each in inside
    ]


def _services_agree(rows: Sequence[Sequence[str]], chosen: Sequence[Known]) -> None:
    expected = {}
    for key in {one.record.incident.key for one in chosen}:
        mine = [one for one in chosen if one.record.incident.key == key]
        mean = _mean(oracle.durations("restore", mine))
        said = "" if mean is None else f", restored in {_time(mean)} (mean)"
        expected[f"{key.service} {key.environment}{said}"] = len(mine)
    assert {row[0]: int(row[-1]) for row in rows} == expected


def _runbooks_agree(tables: dict[str, list[list[str]]], chosen: Sequence[Known]) -> None:
    planned: dict[str, list[Known]] = {}
    for one in chosen:
        if one.record.incident.plan is not None and one.record.incident.plan.runbook is not None:
            planned.setdefault(one.record.incident.plan.runbook, []).append(one)
    expected = set()
    for name, mine in planned.items():
        acted = [one for one in mine if one.record.incident.lesson is not None and oracle.done(one)]
        worked = sum(one.record.incident.state is IncidentState.RECOVERED for one in acted)
        said = f"{worked} of {len(acted)}: {_interval(worked, len(acted))}" if acted else "no data"
        expected.add((name, str(len(mine)), str(len(acted)), said))
    rows = tables["Runbooks with the share of incidents that recovered by their action"]
    assert {tuple(row) for row in rows} == expected


def _decisions_agree(
    tables: dict[str, list[list[str]]], where: StatsFilter, everything: Sequence[Known]
) -> None:
    def shown_as(action: str, decision: str, result: str | None, dry_run: bool) -> tuple[str, ...]:
        name = action.replace("_", " ") + (" dry run" if dry_run else "")
        return name, decision.replace("_", " "), (result or "not ended").replace("_", " ")

    expected = {
        shown_as(*key): number  # type: ignore[arg-type]  # the oracle's keys
        for key, number in oracle.decisions(where, everything).items()
    }
    rows = tables["Decisions on actions and what became of the actions"]
    assert {tuple(row[:3]): int(row[3]) for row in rows} == expected
    assert {row[0]: int(row[1]) for row in tables["Reasons with their numbers"]} == {
        f"{str(decision).replace('_', ' ')} {reason}": number
        for (decision, reason), number in oracle.reasons(where, everything).items()
    }


def _approvals_and_budget_agree(words: str, where: StatsFilter, everything: Sequence[Known]) -> None:
    asked = [
        each
        for one in everything
        if oracle.about(where, one)
        for each in one.record.approvals
        if oracle.within(where, each.requested_at)
    ]
    waits = [
        wait
        for each in asked
        if each.answered_by and (wait := oracle.seconds(each.requested_at, each.answered_at)) is not None
    ]
    assert f"{len(asked)} requested:" in words
    for state, number in Counter(each.state for each in asked).items():
        assert f"{number} {state.replace('_', ' ')}" in words
    p50, p95 = (_time(oracle.percentile(waits, percent)) for percent in (50, 95))
    assert f"People decided within {p50} (p50), {p95} (p95)." in words
    by_day = oracle.began(where, everything)
    total = sum(day.total() for day in by_day.values())
    said = re.search(r"(\d+) actions? began, most on \S+ ?: (\d+), at most (\d+) of them on one", words)
    assert said is not None
    assert int(said[1]) == total
    assert int(said[2]) == max(day.total() for day in by_day.values())
