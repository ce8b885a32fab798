"""The soak's accounts find what they are there to find: each way in which books do not add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import IncidentId
from app.agent.models import (
    ActionName,
    DecisionKind,
    IncidentState,
    IntentState,
    Note,
    OutcomeKind,
    Stage,
)
from app.agent.timeline import chain_start, extend_chain
from tests.soak.accounts import Books, Holding, IncidentRow, IntentRow, SignalRow
from tests.soak.audit import audit, percentile, take_over_seconds
from tests.soak.intakes import Sent
from tests.soak.processes import Killing
from tests.soak.score import Manner, Size, compose
from tests.soak.wire import Effect

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def incident(name: str, opened: float, closed: float, service: str = "shop") -> IncidentRow:
    chain = extend_chain(
        chain_start(IncidentId(name)),
        0,
        [Note(at=at(opened), stage=Stage.OBSERVE, message=f"entry {n}") for n in range(3)],
    )
    return IncidentRow(
        id=name,
        service=service,
        state=IncidentState.RECOVERED,
        opened_at=at(opened),
        closed_at=at(closed),
        timeline=chain,
        timeline_length=len(chain),
        timeline_head=chain[-1].hash,
    )


def intent(name: str, incident_id: str, began: float) -> IntentRow:
    return IntentRow(
        id=name,
        incident_id=incident_id,
        action=ActionName.ROLLBACK,
        decision=DecisionKind.ALLOW,
        dry_run=False,
        state=IntentState.FINISHED,
        undoes=None,
        started_at=at(began),
        outcome=OutcomeKind.DONE,
    )


def effect(name: str, began: float, ended: float, service: str = "shop") -> Effect:
    return Effect(
        service=service,
        intent=name,
        action="rollback",
        object=f"Deployment prod/{service}",
        version_before="1",
        version_after="2",
        began=at(began),
        committed=at(began + 0.1),
        ended=at(ended),
        answered=True,
    )


def signal(name: str, disposition: str, incident_id: str | None = None) -> SignalRow:
    return SignalRow(
        id=name,
        source="http",
        content=f"metric/shop/{name}",
        disposition=disposition,
        incident_id=incident_id,
        duplicate_of=None,
    )


BOOKS = Books(
    signals=(
        signal("sig_1", "opened", "inc_1"),
        signal("sig_2", "opened", "inc_2"),
        signal("sig_3", "ignored"),
    ),
    incidents={"inc_1": incident("inc_1", 0, 10), "inc_2": incident("inc_2", 20, 30)},
    intents={"int_1": intent("int_1", "inc_1", 4), "int_2": intent("int_2", "inc_2", 24)},
    holdings=(),
    effects=(effect("int_1", 5, 6), effect("int_2", 25, 26)),
    refusals=(),
)
SENT = Sent(acknowledged=["sig_1", "sig_2", "sig_3"])


def with_incident(changed: IncidentRow) -> Books:
    return replace(BOOKS, incidents={**BOOKS.incidents, changed.id: changed})


def with_intent(changed: IntentRow) -> Books:
    return replace(BOOKS, intents={**BOOKS.intents, changed.id: changed})


def with_signal(changed: SignalRow) -> Books:
    return replace(BOOKS, signals=(*BOOKS.signals[:2], changed))


INCIDENT, INTENT = BOOKS.incidents["inc_1"], BOOKS.intents["int_1"]


def test_books_that_add_up_are_found_to() -> None:
    """Nothing is found where nothing is wrong."""
    assert audit(BOOKS, SENT, "http") == []


@pytest.mark.parametrize(
    ("check", "books"),
    [
        ("accepted_is_accounted", replace(BOOKS, signals=BOOKS.signals[:2])),
        ("accepted_is_accounted", replace(BOOKS, signals=(*BOOKS.signals, signal("sig_4", "ignored")))),
        ("every_signal_has_its_end", with_signal(signal("sig_3", "pending"))),
        ("every_signal_has_its_end", with_signal(signal("sig_3", "joined", "inc_9"))),
        ("every_signal_has_its_end", with_signal(signal("sig_3", "deduplicated"))),
        ("every_signal_has_its_end", with_signal(signal("sig_3", "opened", "inc_1"))),
        ("one_effect_for_each_intent", replace(BOOKS, effects=(*BOOKS.effects, effect("int_2", 27, 28)))),
        ("every_effect_was_allowed", replace(BOOKS, effects=(*BOOKS.effects, effect("int_9", 27, 28)))),
        ("every_effect_was_allowed", with_intent(replace(INTENT, decision=DecisionKind.DENY))),
        ("every_effect_was_allowed", with_intent(replace(INTENT, started_at=at(5.5)))),
        ("every_effect_was_allowed", with_intent(replace(INTENT, action=ActionName.RESTART))),
        ("every_effect_was_allowed", with_incident(incident("inc_1", 0, 10, "cart"))),
        ("outcomes_tell_the_truth", replace(BOOKS, effects=BOOKS.effects[:1])),
        ("outcomes_tell_the_truth", with_intent(replace(INTENT, outcome=OutcomeKind.FAILED))),
        ("outcomes_tell_the_truth", with_intent(replace(INTENT, state=IntentState.EXECUTING))),
        ("effects_do_not_overlap", replace(BOOKS, effects=(effect("int_1", 5, 25.5), BOOKS.effects[1]))),
        ("one_open_incident_for_each_service", with_incident(incident("inc_1", 0, 20.5))),
        ("every_incident_ended", with_incident(replace(INCIDENT, state=IncidentState.OPEN))),
        (
            "every_timeline_verifies",
            with_incident(replace(INCIDENT, timeline=INCIDENT.timeline[1:], timeline_length=2)),
        ),
        ("every_timeline_verifies", with_incident(replace(INCIDENT, timeline=INCIDENT.timeline[:2]))),
        (
            "budgets_hold",
            replace(
                BOOKS,
                intents={**BOOKS.intents, **{f"int_{n}": intent(f"int_{n}", "inc_1", 4) for n in (3, 4)}},
            ),
        ),
    ],
)
def test_each_thing_wrong_is_found(check: str, books: Books) -> None:
    """One thing wrong in the books is named by the check that is about it."""
    assert [line for line in audit(books, SENT, "http") if line.startswith(f"{check}:")]


def test_incidents_that_take_turns_overlap() -> None:
    """An effect of a later incident between two of an earlier one is found, though no two overlap in time."""
    books = replace(
        BOOKS,
        intents={**BOOKS.intents, "int_3": intent("int_3", "inc_1", 26)},
        effects=(*BOOKS.effects, effect("int_3", 27, 28)),
    )
    assert any("took turns" in line for line in audit(books, SENT, "http"))


def test_what_a_stream_took_in_is_counted_by_content() -> None:
    """Once for each acknowledgement, and once more at most for each answer that was lost."""
    there = Counter(row.content for row in BOOKS.signals)
    assert audit(BOOKS, Sent(appended=there), "http") == []
    once_more = there + Counter(["metric/shop/sig_3"])
    assert any("sig_3" in line for line in audit(BOOKS, Sent(appended=once_more), "http"))
    missing = Counter({name: 1 for name in there if not name.endswith("sig_3")})
    assert any("sig_3" in line for line in audit(BOOKS, Sent(appended=missing), "http"))
    unsure = Sent(appended=missing, unsure=Counter(["metric/shop/sig_3"]))
    assert audit(BOOKS, unsure, "http") == []


def test_a_take_over_lasts_from_the_kill_to_the_next_owner() -> None:
    """What was voided on the way counts, what the dead one had released itself does not."""

    def holding(incident_id: str, seconds: float, owner: str | None, interruptions: int = 0) -> Holding:
        return Holding(incident_id=incident_id, owner=owner, interruptions=interruptions, at=at(seconds))

    books = replace(
        BOOKS,
        holdings=(
            holding("inc_1", 1, "dead"),
            holding("inc_2", 1, "dead"),
            holding("inc_3", 1, "peer"),
            holding("inc_2", 2.1, None),
            holding("inc_1", 2.5, None, 1),
            holding("inc_1", 2.75, "peer", 1),
            holding("inc_2", 9, "peer"),
            holding("inc_3", 9, "peer"),
        ),
    )
    killing = Killing(process="worker-0", at=at(2), owners=("dead",))
    assert take_over_seconds(books, [killing], same_name=False) == [0.75]


def test_percentiles_are_of_the_nearest_rank() -> None:
    """Of one value it is that value; of none there is none."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert percentile([1.0], 0.5) == 1.0
    assert percentile([], 0.5) is None


def test_a_seed_composes_the_same_score_again() -> None:
    """Everything but the beginning follows from the seed, and the entries are as many as were asked for."""
    size = Size(services=20, signals=400, seconds=30, kills=5, breakages=10)
    score = compose(size)
    assert score == compose(size)
    assert score != compose(replace(size, seed=size.seed + 1))
    assert score.entries == 400
    assert len(score.kills) == 5
    assert {m.manner for m in score.messages} == set(Manner)
