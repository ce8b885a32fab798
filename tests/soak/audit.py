"""Whether the accounts of a soak add up: one check for each thing that is promised, and the times it took.

`audit` says in words what does not add up; each check names its promise. All of
them are pure: `tests.soak.accounts` reads what they judge.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from app.agent.ids import IncidentId
from app.agent.models import (
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    OutcomeKind,
)
from app.agent.timeline import chain_start, verify_chain
from tests.soak.accounts import Books, Holding
from tests.soak.intakes import Sent
from tests.soak.processes import Killing

BUDGET = 2
"""MAX_ACTIONS_PER_INCIDENT as it comes."""


def audit(books: Books, sent: Sent, source: str) -> list[str]:
    """What does not add up, in words; empty when everything does. `source` is that of the senders."""
    wrong: list[str] = []
    for check in _CHECKS:
        wrong += [f"{check.__name__}: {finding}" for finding in check(books)]
    wrong += [f"accepted_is_accounted: {finding}" for finding in accepted_is_accounted(books, sent, source)]
    return wrong


def accepted_is_accounted(books: Books, sent: Sent, source: str) -> Iterable[str]:
    """Every acknowledged signal is there once, and of this source nothing else is (promise 9)."""
    rows = [row for row in books.signals if row.source == source]
    if sent.appended:
        yield from _contents_accounted(Counter(row.content for row in rows), sent)
        return
    there = Counter(row.id for row in rows)
    told = Counter(sent.acknowledged)
    for signal_id in told.keys() - there.keys():
        yield f"{signal_id} was acknowledged and is lost"
    for signal_id in there.keys() - told.keys():
        yield f"{signal_id} is there, and no sender was told so"
    for signal_id, times in told.items():
        if times > 1:
            yield f"{signal_id} was given as the answer to {times} different entries"


def _contents_accounted(there: Counter[str], sent: Sent) -> Iterable[str]:
    """As often as the stream took it in: a redelivery adds nothing, a crash takes nothing away."""
    for content in there.keys() | sent.appended.keys():
        least = sent.appended[content]
        most = least + sent.unsure[content]
        if not least <= there[content] <= most:
            yield f"{content} was appended {least} to {most} times, and is there {there[content]} times"


def every_signal_has_its_end(books: Books) -> Iterable[str]:
    """A final disposition that names what it says (promise 9)."""
    known = {row.id for row in books.signals}
    opened = Counter(row.incident_id for row in books.signals if row.disposition == DispositionKind.OPENED)
    for row in books.signals:
        if row.disposition == DispositionKind.PENDING:
            yield f"{row.id} is still pending"
        if row.disposition in (DispositionKind.OPENED, DispositionKind.JOINED) and (
            row.incident_id not in books.incidents
        ):
            yield f"{row.id} is {row.disposition} with {row.incident_id}, which is not there"
        if row.disposition == DispositionKind.DEDUPLICATED and row.duplicate_of not in known:
            yield f"{row.id} repeats {row.duplicate_of}, which is not there"
    for incident_id in books.incidents:
        if opened[incident_id] != 1:
            yield f"{incident_id} was opened by {opened[incident_id]} signals"


def one_effect_for_each_intent(books: Books) -> Iterable[str]:
    """Counted by the stand-in (promise 2)."""
    for intent, times in Counter(effect.intent for effect in books.effects).items():
        if times > 1:
            yield f"{intent} had {times} effects"


def every_effect_was_allowed(books: Books) -> Iterable[str]:
    """An intent was on record, allowed and begun, before its effect (promises 1, 2 and 5)."""
    for effect in books.effects:
        intent = books.intents.get(effect.intent)
        if intent is None:
            yield f"{effect.intent} had an effect on {effect.service}, and is not on record"
            continue
        if intent.decision is not DecisionKind.ALLOW or intent.dry_run:
            yield f"{effect.intent} had an effect, and was {intent.decision} (dry run: {intent.dry_run})"
        if intent.started_at is None or intent.started_at > effect.committed:
            yield f"{effect.intent} had its effect at {effect.committed}, and began at {intent.started_at}"
        if intent.action != effect.action:
            yield f"{effect.intent} is a {intent.action}, and did a {effect.action}"
        incident = books.incidents[intent.incident_id]
        if incident.service != effect.service:
            yield f"{effect.intent} of {incident.service} touched {effect.service}"


def outcomes_tell_the_truth(books: Books) -> Iterable[str]:
    """Done means there was an effect, failed and refused mean there was none, and each has an end."""
    happened = {effect.intent for effect in books.effects}
    for intent in books.intents.values():
        if intent.state != IntentState.FINISHED or intent.outcome is None:
            yield f"{intent.id} is {intent.state}"
        elif intent.outcome is OutcomeKind.DONE and intent.id not in happened:
            yield f"{intent.id} is done, and the stand-in saw nothing of it"
        elif intent.outcome in (OutcomeKind.FAILED, OutcomeKind.REFUSED) and intent.id in happened:
            yield f"{intent.id} is {intent.outcome}, and the stand-in saw its effect"


def effects_do_not_overlap(books: Books) -> Iterable[str]:
    """Of a service one at a time, and one incident's after another's (promise 3)."""
    for service, effects in _by_service(books.effects, lambda e: e.service).items():
        in_order = sorted(effects, key=lambda e: e.began)
        for earlier, later in pairwise(in_order):
            if later.began < earlier.ended:
                yield f"{service}: {later.intent} began before {earlier.intent} ended"
        owners = [books.intents[e.intent].incident_id for e in in_order if e.intent in books.intents]
        turns = [one for one, before in zip(owners, [None, *owners], strict=False) if one != before]
        if len(turns) != len(set(turns)):
            yield f"{service}: incidents took turns: {turns}"


def one_open_incident_for_each_service(books: Books) -> Iterable[str]:
    """The times in which a service's incidents were open do not overlap (promise 3)."""
    for service, found in _by_service(books.incidents.values(), lambda i: i.service).items():
        for earlier, later in pairwise(sorted(found, key=lambda i: (i.opened_at, i.closed_at or _NEVER))):
            if earlier.closed_at is None or later.opened_at < earlier.closed_at:
                yield (
                    f"{service}: {later.id} opened at {later.opened_at}, "
                    f"and {earlier.id} closed at {earlier.closed_at}"
                )


def every_incident_ended(books: Books) -> Iterable[str]:
    for incident in books.incidents.values():
        if not incident.state.closed or incident.closed_at is None:
            yield f"{incident.id} of {incident.service} is {incident.state}"


def every_timeline_verifies(books: Books) -> Iterable[str]:
    """Each chain is whole, from its first entry to the one the store remembers as its last (promise 12)."""
    for incident in books.incidents.values():
        entries = incident.timeline
        head = entries[-1].hash if entries else chain_start(IncidentId(incident.id))
        if not verify_chain(IncidentId(incident.id), entries):
            yield f"{incident.id}: the chain is broken"
        if (len(entries), head) != (incident.timeline_length, incident.timeline_head):
            yield f"{incident.id}: {len(entries)} entries are there, {incident.timeline_length} were written"


def budgets_hold(books: Books) -> Iterable[str]:
    """Actions of an incident that began, undoing left out (promise 4)."""
    begun = Counter(
        i.incident_id for i in books.intents.values() if i.started_at is not None and i.undoes is None
    )
    for incident_id, times in begun.items():
        if times > BUDGET:
            yield f"{incident_id} began {times} actions"


_CHECKS: tuple[Callable[[Books], Iterable[str]], ...] = (
    every_signal_has_its_end,
    one_effect_for_each_intent,
    every_effect_was_allowed,
    outcomes_tell_the_truth,
    effects_do_not_overlap,
    one_open_incident_for_each_service,
    every_incident_ended,
    every_timeline_verifies,
    budgets_hold,
)

_NEVER = datetime.max.replace(tzinfo=UTC)

T = TypeVar("T")


def _by_service(rows: Iterable[T], service: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for row in rows:
        found[service(row)].append(row)
    return found


# ---------------------------------------------------------------- figures


def take_over_seconds(books: Books, killings: Sequence[Killing], *, same_name: bool) -> list[float]:
    """From each kill -9 to the moment each incident that the dead process held was claimed again.

    `same_name`: a successor goes by the same owner's name (SQLite), so that any
    later claim is its own. A claim that the dead one had already asked to be
    released, and that was, is none that had to be taken over.
    """
    by_incident: dict[str, list[Holding]] = defaultdict(list)
    for holding in books.holdings:
        by_incident[holding.incident_id].append(holding)
    found = []
    for killing in killings:
        for history in by_incident.values():
            before = [h for h in history if h.at <= killing.at]
            after = [h for h in history if h.at > killing.at]
            if not before or before[-1].owner not in killing.owners or not after:
                continue
            if after[0].owner is None and after[0].interruptions == 0:
                continue
            taken = next(
                (h for h in after if h.owner is not None and (same_name or h.owner not in killing.owners)),
                None,
            )
            if taken is not None:
                found.append((taken.at - killing.at).total_seconds())
    return sorted(found)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank; None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def recovery_seconds(books: Books) -> list[float]:
    """How long incidents that recovered were open."""
    found = (
        (i.closed_at - i.opened_at)
        for i in books.incidents.values()
        if i.closed_at is not None and i.state is IncidentState.RECOVERED
    )
    return sorted(lasted.total_seconds() for lasted in found if lasted >= timedelta(0))
