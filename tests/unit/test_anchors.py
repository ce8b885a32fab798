"""Anchors show what a chain alone cannot: hashes computed again, a cut end, a deleted incident."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent.audit.anchoring import (
    START,
    Anchor,
    Head,
    Known,
    broken_anchors,
    digest,
    next_anchor,
    of_incident,
    of_people,
    people_head,
    receded,
)
from app.agent.identity.audit_log import START as TRAIL_START
from app.agent.identity.audit_log import AuditLogEntry, HumanDecision, HumanDecisionKind
from app.agent.identity.audit_log import entry as trail_entry
from app.agent.identity.people import Door, Person
from app.agent.ids import IncidentId
from app.agent.models import Note, Stage, TimelineEntry
from app.agent.timeline import chain_start, extend_chain
from app.config import Settings
from app.connectors.anchors import AnchorFolder
from app.errors import Conflict, PermanentError
from app.store import open_store
from app.testing import VirtualClock
from app.workers.anchor_writer import Anchorer
from testbed.waiting import NotYet, wait_for
from tests.sqlite_template import migrated
from tests.unit.heal_command import REPOSITORY, Heal, agent_process
from tests.unit.test_cli import healed, played, tampering  # noqa: F401 - fixtures

AT = datetime(2026, 2, 20, 17, tzinfo=UTC)
KEY = b"k" * 32
ONE, TWO = IncidentId("inc_1"), IncidentId("inc_2")
EMPTY_TRAIL = Head(length=0, hash=TRAIL_START)


def entries(name: IncidentId, count: int, word: str = "said") -> tuple[TimelineEntry, ...]:
    notes = [Note(at=AT, stage=Stage.OBSERVE, message=f"{word} {n}", data={}) for n in range(count)]
    return extend_chain(chain_start(name), 0, notes)


def head(timeline: tuple[TimelineEntry, ...]) -> Head:
    return Head(length=len(timeline), hash=timeline[-1].hash)


def series(*lengths: int, key: bytes | None = None) -> list[Anchor]:
    """Anchors of one incident that grew to these lengths."""
    made: list[Anchor] = []
    for length in lengths:
        known = Known.of(made)
        made.append(next_anchor(known, {ONE: head(entries(ONE, length))}, EMPTY_TRAIL, AT, key))
    return made


def test_a_record_that_only_grew_agrees_with_every_anchor() -> None:
    """Each anchor names a beginning of it."""
    known = Known.of(series(2, 5))
    assert list(of_incident(ONE, known, entries(ONE, 7))) == []
    assert list(receded(known, {ONE: head(entries(ONE, 7))}, EMPTY_TRAIL)) == []


def test_what_did_not_change_is_named_once() -> None:
    """An anchor holds what grew since the one before it."""
    first, second, third = series(2, 2, 3)
    assert (set(first.incidents), set(second.incidents), set(third.incidents)) == ({ONE}, set(), {ONE})


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (None, "missing from the database"),
        (entries(ONE, 4), "its end was cut off"),
        (entries(ONE, 5, "claimed"), "are not those that anchor"),
        (entries(ONE, 9, "claimed"), "are not those that anchor"),
    ],
)
def test_a_record_that_was_cut_recomputed_or_deleted_differs(
    left: tuple[TimelineEntry, ...] | None, words: str
) -> None:
    """Even where every hash of its chain is right."""
    (sentence,) = of_incident(ONE, Known.of(series(2, 5)), left)
    assert words in sentence


def test_a_record_changed_between_two_anchors_differs_from_the_first() -> None:
    """The second was made of what was changed, and the first was not."""
    first = next_anchor(Known.of([]), {ONE: head(entries(ONE, 3))}, EMPTY_TRAIL, AT, None)
    forged = entries(ONE, 6, "claimed")
    second = next_anchor(Known.of([first]), {ONE: head(forged)}, EMPTY_TRAIL, AT, None)
    (sentence,) = of_incident(ONE, Known.of([first, second]), forged)
    assert "anchor 1" in sentence


def test_heads_that_went_back_are_seen_without_reading_entries() -> None:
    """A cheap comparison each time an anchor is made."""
    known = Known.of(series(5))
    for left, words in (
        ({}, "missing"),
        ({ONE: head(entries(ONE, 4))}, "cut off"),
        ({ONE: head(entries(ONE, 5, "claimed"))}, "are not those"),
    ):
        (sentence,) = receded(known, left, EMPTY_TRAIL)
        assert words in sentence


@pytest.mark.parametrize("key", [None, KEY])
def test_anchors_that_are_changed_or_missing_are_found(key: bytes | None) -> None:
    """Each names the digest of the one before."""
    anchors = series(1, 2, 3, key=key)
    assert list(broken_anchors(anchors, key)) == []
    assert list(broken_anchors(anchors[1:], key))
    assert list(broken_anchors([anchors[0], anchors[2]], key))
    changed = replace(anchors[1], incidents={ONE: head(entries(ONE, 1))})
    assert list(broken_anchors([anchors[0], changed, anchors[2]], key))


def test_a_series_made_again_is_found_by_the_key_alone() -> None:
    """Its digests are right, and its seals are of no key or of another."""
    assert list(broken_anchors(series(1, 2), KEY))
    assert list(broken_anchors(series(1, 2, key=b"x" * 32), KEY))
    assert list(broken_anchors(series(1, 2), None)) == []


def test_the_first_anchor_follows_the_start() -> None:
    """So that a series without its beginning shows."""
    (first,) = series(1)
    assert (first.number, first.previous) == (1, START)


def test_the_trail_of_people_is_anchored_as_timelines_are() -> None:
    """Decisions that were cut off, or computed again, differ from the anchor."""
    carol = Person(name="carol", door=Door.API, verified=True)

    def decisions(*subjects: str) -> list[AuditLogEntry]:
        made: list[AuditLogEntry] = []
        for subject in subjects:
            human_decision = HumanDecision(at=AT, by=carol, kind=HumanDecisionKind.APPROVED, subject=subject)
            made.append(trail_entry(made[-1].hash if made else TRAIL_START, len(made), human_decision))
        return made

    known = Known.of([next_anchor(Known(), {}, people_head(decisions("a", "b")), AT, None)])
    assert list(of_people(known, decisions("a", "b", "c"))) == []
    for left, words in ((decisions("a"), "cut off"), (decisions("a", "x", "c"), "are not those")):
        (sentence,) = of_people(known, left)
        assert words in sentence
        assert list(receded(known, {}, people_head(left))) or len(left) > 2


# ------------------------------------------------------------------ the folder


def test_an_anchor_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And its number is taken from then on."""
    folder = AnchorFolder(tmp_path / "anchors", KEY)
    assert folder.read() == ()
    anchors = series(1, 2, key=KEY)
    for one in anchors:
        folder.write(one)
    assert list(folder.read()) == anchors
    with pytest.raises(Conflict):
        folder.write(anchors[1])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"form": 1, "number": "x"}'])
def test_a_file_that_is_no_anchor_is_named(tmp_path: Path, text: str) -> None:
    """It is never passed over."""
    (tmp_path / "anchor-00000001.json").write_text(text)
    with pytest.raises(PermanentError, match="anchor-00000001"):
        AnchorFolder(tmp_path, None).read()


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    """Its digest is not that of its content."""
    folder = AnchorFolder(tmp_path, None)
    path = folder.write(series(3)[0])
    body = json.loads(path.read_text())
    body["incidents"][ONE][0] = 2
    path.write_text(json.dumps(body))
    with pytest.raises(PermanentError, match="was modified"):
        folder.read()


# ------------------------------------------------------------------ the duty


async def test_an_anchor_is_written_at_each_interval_and_after_a_clock_that_went_back(tmp_path: Path) -> None:
    """Not twice within one; one dated in the future does not hold the next back."""
    store = await open_store(migrated(tmp_path / "heal.db"))
    clock = VirtualClock(AT)
    folder = AnchorFolder(tmp_path / "anchors", KEY)
    anchorer = Anchorer(store=store, clock=clock, folder=folder, every=timedelta(hours=24))
    try:
        assert (await anchorer.write_if_due()) is not None
        await clock.advance(23 * 3600)
        assert (await anchorer.write_if_due()) is None
        await clock.advance(2 * 3600)
        assert (await anchorer.write_if_due()) is not None
        earlier = Anchorer(
            store=store, clock=VirtualClock(AT - timedelta(days=30)), folder=folder, every=timedelta(hours=24)
        )
        assert (await earlier.write_if_due()) is not None
    finally:
        await store.close()
    assert [one.number for one in folder.read()] == [1, 2, 3]


def test_an_agent_at_work_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first soon after its start; its digest is in the log."""
    (tmp_path / "runbooks").symlink_to(REPOSITORY / "runbooks")
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    with agent_process(tmp_path):

        def written() -> bool | NotYet:
            text = (tmp_path / "agent.log").read_text()
            return True if "audit anchor 1: digest" in text else NotYet(text)

        wait_for("the first anchor", written, timeout_seconds=60)
    (anchor,) = AnchorFolder(tmp_path / "anchors", None).read()
    assert digest(anchor) in (tmp_path / "agent.log").read_text()


# ------------------------------------------------------------------ the commands


@pytest.fixture
def anchored(heal: Heal, healed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """An incident of the demo, and an anchor of it; its id."""
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    monkeypatch.setenv("AUDIT_ANCHOR_KEY", "k" * 32)
    answer = heal("audit", "anchor")
    assert answer.code == 0, answer.text
    assert "Anchor 1 written" in answer.text
    assert heal("audit", "verify").code == 0
    assert heal("show", healed).code == 0
    return healed


def recompute(database: sqlite3.Connection, incident_id: str, keep: int | None = None) -> None:
    """What a forger does: another sentence, perhaps fewer entries, and every hash right."""
    rows = database.execute(
        "SELECT sequence, at, stage, message, data FROM timeline WHERE incident_id = ? ORDER BY sequence",
        (incident_id,),
    ).fetchall()[:keep]
    notes = [
        Note(
            at=datetime.fromisoformat(at).replace(tzinfo=UTC),
            stage=Stage(stage),
            message=message if keep is not None else message.replace("rollback done", "nothing done"),
            data=json.loads(data),
        )
        for _, at, stage, message, data in rows
    ]
    made = extend_chain(chain_start(IncidentId(incident_id)), 0, notes)
    database.execute("DELETE FROM timeline WHERE incident_id = ? AND sequence >= ?", (incident_id, len(made)))
    for entry in made:
        database.execute(
            "UPDATE timeline SET message = ?, hash = ? WHERE incident_id = ? AND sequence = ?",
            (entry.message, entry.hash, incident_id, entry.sequence),
        )
    database.execute(
        "UPDATE incidents SET timeline_length = ?, timeline_head = ? WHERE id = ?",
        (len(made), made[-1].hash, incident_id),
    )


def test_a_chain_that_was_computed_again_is_found(heal: Heal, anchored: str, tmp_path: Path) -> None:
    """By `heal audit verify` and by `heal show`."""
    with tampering(tmp_path) as database:
        recompute(database, anchored)
    for arguments in (("audit", "verify"), ("show", anchored)):
        answer = heal(*arguments)
        assert answer.code == 1
        assert "are not those that anchor 1 names" in answer.text


def test_a_tail_that_was_cut_off_with_its_length_is_found(heal: Heal, anchored: str, tmp_path: Path) -> None:
    """The chain that is left holds, and the anchor names more."""
    with tampering(tmp_path) as database:
        recompute(database, anchored, keep=5)
    for arguments in (("audit", "verify"), ("show", anchored)):
        answer = heal(*arguments)
        assert answer.code == 1
        assert "its end was cut off" in answer.text


def test_a_deleted_incident_is_found(heal: Heal, anchored: str, tmp_path: Path) -> None:
    """It is not only unknown."""
    with tampering(tmp_path) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        for table, column in (("timeline", "incident_id"), ("incidents", "id")):
            database.execute(f"DELETE FROM {table} WHERE {column} = ?", (anchored,))  # noqa: S608 - constants
    for arguments in (("audit", "verify"), ("show", anchored)):
        answer = heal(*arguments)
        assert answer.code == 1
        assert "missing from the database" in answer.text


def test_an_incident_that_cannot_be_read_is_not_called_altered(heal: Heal, anchored: str) -> None:
    """No agent answers: nothing is known of the record."""
    answer = heal("show", anchored, "--url", "http://127.0.0.1:9")
    assert answer.code == 1
    assert "no agent answers at" in answer.text
    assert "altered" not in answer.text


@pytest.mark.usefixtures("anchored")
def test_anchors_that_were_removed_are_found_by_a_digest_from_the_log(heal: Heal, tmp_path: Path) -> None:
    """What is left may be a series without a fault."""
    digested = digest(AnchorFolder(tmp_path / "anchors", None).read()[-1])
    assert heal("audit", "verify", "--digest", digested).code == 0
    (tmp_path / "anchors" / "anchor-00000001.json").unlink()
    answer = heal("audit", "verify", "--digest", digested)
    assert answer.code == 1
    assert "anchors were removed or replaced" in answer.text


@pytest.mark.usefixtures("anchored")
def test_anchors_of_another_key_fail_and_the_doctor_says_so(
    heal: Heal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that another person does not have seals nothing of ours."""
    monkeypatch.setenv("AUDIT_ANCHOR_KEY", "x" * 32)
    assert "not of AUDIT_ANCHOR_KEY" in heal("audit", "verify").text
    answer = heal("doctor")
    assert answer.code == 1
    assert "audit anchors: anchor 1 of " in answer.text
    assert "has a seal that is not of AUDIT_ANCHOR_KEY" in answer.text


@pytest.mark.usefixtures("anchored")
def test_a_digest_is_compared_by_its_first_digits(heal: Heal, tmp_path: Path) -> None:
    """Logs are shortened; what names no anchor by itself is an error and no discrepancy."""
    digested = digest(AnchorFolder(tmp_path / "anchors", None).read()[-1])
    for given in (digested[:12], digested[:20].upper(), digested):
        assert heal("audit", "verify", "--digest", given).code == 0
    for given in (digested[:11], digested[:12] + "...", "", digested + "0"):
        answer = heal("audit", "verify", "--digest", given)
        assert answer.code == 1
        assert "is not a digest: give 12 to 64 hex digits" in answer.text
        assert "discrepancy" not in answer.text
    other = ("0" if digested[11] != "0" else "1").join((digested[:11], ""))
    assert "anchors were removed or replaced" in heal("audit", "verify", "--digest", other).text


@pytest.mark.usefixtures("healed")
def test_anchors_from_before_the_key_are_reported_once_with_the_fix(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many, since when, and what to do; for the command and for the doctor."""
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    for _ in range(2):
        assert heal("audit", "anchor").code == 0
    monkeypatch.setenv("AUDIT_ANCHOR_KEY", "x" * 32)
    for command in (("audit", "verify"), ("doctor",)):
        answer = heal(*command)
        assert answer.code == 1
        assert answer.text.count("not sealed with AUDIT_ANCHOR_KEY") == 1
        assert "2 anchors (1 to 2, from 20" in answer.text
        assert "set AUDIT_ANCHOR_DIR to a new, empty folder" in answer.text


def test_a_tail_that_was_cut_off_alone_shows_without_anchors(
    heal: Heal,
    healed: str,  # noqa: F811 - fixture
    tmp_path: Path,
) -> None:
    """`heal show` compares the length and the last hash that stand beside the timeline."""
    with tampering(tmp_path) as database:
        database.execute("DELETE FROM timeline WHERE incident_id = ? AND sequence >= 5", (healed,))
    answer = heal("show", healed)
    assert answer.code == 1
    assert "5 entries in its timeline, and" in answer.text
    assert "Record intact" not in answer.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"audit_anchor_key": "k" * 32}, "AUDIT_ANCHOR_KEY needs AUDIT_ANCHOR_DIR"),
        (
            {"audit_anchor_key": "k", "audit_anchor_dir": "anchors"},
            "AUDIT_ANCHOR_KEY needs at least 32",
        ),
    ],
)
def test_a_key_without_a_folder_or_too_short_stops_the_start(values: dict[str, str], words: str) -> None:
    """It would seal nothing."""
    with pytest.raises(ValueError, match=words):
        Settings.model_validate(values)
