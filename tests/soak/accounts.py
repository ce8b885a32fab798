"""The accounts of a soak: every question that is put to the database and to the stand-in's log.

Nothing here asks the agent. `install_claim_log` has the database itself write
down every change of hands, which is how take-over times are known without
asking who is measured. `tests.soak.audit` judges what is read here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, NullPool, Row, create_engine, func, select, text
from sqlalchemy.exc import OperationalError

from app.agent.models import (
    ActionName,
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    Outcome,
    OutcomeKind,
    Stage,
    TimelineEntry,
)
from app.store.database import codec
from app.store.database.codec import IntentBody
from app.store.database.tables import (
    claims,
    incidents,
    intents,
    signals,
    timeline,
)
from tests.soak.intakes import content_of
from tests.soak.wire import Effect, Refusal

LOOK_EVERY_SECONDS = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    id: str
    source: str
    content: str
    disposition: str
    incident_id: str | None
    duplicate_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    id: str
    service: str
    state: IncidentState
    opened_at: datetime
    closed_at: datetime | None
    timeline: tuple[TimelineEntry, ...]
    timeline_length: int
    timeline_head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRow:
    id: str
    incident_id: str
    action: ActionName
    decision: DecisionKind
    dry_run: bool
    state: str
    undoes: str | None
    started_at: datetime | None
    outcome: OutcomeKind | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One change of hands of an incident's claim."""

    incident_id: str
    owner: str | None
    interruptions: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything that was written down."""

    signals: tuple[SignalRow, ...]
    incidents: dict[str, IncidentRow]
    intents: dict[str, IntentRow]
    holdings: tuple[Holding, ...]
    effects: tuple[Effect, ...]
    refusals: tuple[Refusal, ...]


# ---------------------------------------------------------------- the claim log

_POSTGRES_LOG = """
CREATE TABLE soak_claims (
    number bigserial PRIMARY KEY, incident_id text, owner text, interruptions int,
    at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION soak_note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO soak_claims (incident_id, owner, interruptions)
    VALUES (NEW.incident_id, NEW.owner, NEW.interruptions);
    RETURN NULL;
END $$;
CREATE TRIGGER soak_claim_taken AFTER INSERT ON claims
    FOR EACH ROW EXECUTE FUNCTION soak_note_claim();
CREATE TRIGGER soak_claim_moved AFTER UPDATE ON claims
    FOR EACH ROW WHEN (OLD.owner IS DISTINCT FROM NEW.owner OR OLD.token <> NEW.token)
    EXECUTE FUNCTION soak_note_claim();
"""

_SQLITE_LOG = """
CREATE TABLE soak_claims (
    number integer PRIMARY KEY, incident_id text, owner text, interruptions int,
    at text DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')));
--
CREATE TRIGGER soak_claim_taken AFTER INSERT ON claims BEGIN
    INSERT INTO soak_claims (incident_id, owner, interruptions)
    VALUES (NEW.incident_id, NEW.owner, NEW.interruptions);
END;
--
CREATE TRIGGER soak_claim_moved AFTER UPDATE ON claims
WHEN OLD.owner IS NOT NEW.owner OR OLD.token <> NEW.token BEGIN
    INSERT INTO soak_claims (incident_id, owner, interruptions)
    VALUES (NEW.incident_id, NEW.owner, NEW.interruptions);
END;
"""


def engine_of(database_url: str) -> Engine:
    """For looking only: one connection at a time, none kept."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return create_engine(url, poolclass=NullPool, json_deserializer=codec.loads)


def install_claim_log(engine: Engine) -> None:
    """From now on every change of hands is written down, in its own transaction."""
    parts = [_POSTGRES_LOG] if engine.dialect.name == "postgresql" else _SQLITE_LOG.split("--\n")
    with engine.begin() as connection:
        for part in parts:
            connection.execute(text(part.replace(":", "\\:")))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What is still under way."""

    open_incidents: int
    pending_services: tuple[str, ...]
    """Services with signals that wait for their end."""
    arrived: int
    """Signals of the senders that are on record."""


def unfinished(engine: Engine, source: str) -> Unfinished:
    with engine.connect() as connection:
        still_open = connection.execute(select(incidents.c.id).where(incidents.c.closed_at.is_(None)))
        pending = connection.execute(
            select(signals.c.service).where(signals.c.disposition == DispositionKind.PENDING.value).distinct()
        )
        arrived = select(func.count()).select_from(signals).where(signals.c.source == source)
        return Unfinished(
            open_incidents=len(still_open.all()),
            pending_services=tuple(sorted(pending.scalars())),
            arrived=int(connection.execute(arrived).scalar_one()),
        )


def wait_until_held(engine: Engine, owners: tuple[str, ...], seconds: float) -> bool:
    """Whether one of the owners came to hold a claim within that time; False also without a database."""
    deadline = time.monotonic() + seconds
    held = select(func.count()).select_from(claims).where(claims.c.owner.in_(owners))
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while time.monotonic() < deadline:
                if connection.execute(held).scalar_one():
                    return True
                time.sleep(LOOK_EVERY_SECONDS)
    except OperationalError:
        return False
    return False


def trusted_services(engine: Engine) -> int:
    """How many services have a revision on record that served well."""
    with engine.connect() as connection:
        return int(
            connection.execute(
                text("SELECT count(DISTINCT service) FROM revision_history WHERE health = 'served_well'")
            ).scalar_one()
        )


def read_books(engine: Engine, target_log: Path) -> Books:
    """Everything, after the last process has ended."""
    effects, refusals = read_target_log(target_log)
    with engine.connect() as connection:
        entries: dict[str, list[TimelineEntry]] = defaultdict(list)
        for row in connection.execute(select(timeline).order_by(timeline.c.incident_id, timeline.c.sequence)):
            entries[row.incident_id].append(
                TimelineEntry(
                    sequence=row.sequence,
                    at=row.at,
                    stage=Stage(row.stage),
                    message=row.message,
                    data=row.data,
                    hash=row.hash,
                )
            )
        return Books(
            signals=tuple(
                SignalRow(
                    id=row.id,
                    source=row.source,
                    content=content_of(row.kind, row.service, row.observed_at),
                    disposition=row.disposition,
                    incident_id=row.incident_id,
                    duplicate_of=row.duplicate_of,
                )
                for row in connection.execute(select(signals).order_by(signals.c.number))
            ),
            incidents={
                row.id: IncidentRow(
                    id=row.id,
                    service=row.service,
                    state=IncidentState(row.state),
                    opened_at=row.opened_at,
                    closed_at=row.closed_at,
                    timeline=tuple(entries[row.id]),
                    timeline_length=row.timeline_length,
                    timeline_head=row.timeline_head,
                )
                for row in connection.execute(select(incidents).order_by(incidents.c.opened_at))
            },
            intents={row.id: _intent(row) for row in connection.execute(select(intents))},
            holdings=tuple(
                Holding(
                    incident_id=row.incident_id,
                    owner=row.owner,
                    interruptions=row.interruptions,
                    at=_moment(row.at),
                )
                for row in connection.execute(text("SELECT * FROM soak_claims ORDER BY number"))
            ),
            effects=effects,
            refusals=refusals,
        )


def read_target_log(target_log: Path) -> tuple[tuple[Effect, ...], tuple[Refusal, ...]]:
    """What the stand-in counted."""
    effects: list[Effect] = []
    refusals: list[Refusal] = []
    for line in target_log.read_bytes().splitlines():
        if msgspec.json.decode(line)["kind"] == "effect":
            effects.append(msgspec.json.decode(line, type=Effect))
        else:
            refusals.append(msgspec.json.decode(line, type=Refusal))
    return tuple(effects), tuple(refusals)


def _intent(row: Row[Any]) -> IntentRow:
    body = codec.read(IntentBody, row.body)
    outcome = codec.read_optional(Outcome, row.outcome)
    return IntentRow(
        id=row.id,
        incident_id=row.incident_id,
        action=body.action.name,
        decision=body.decision.kind,
        dry_run=row.dry_run,
        state=IntentState(row.state),
        undoes=row.undoes,
        started_at=row.started_at,
        outcome=None if outcome is None else outcome.kind,
    )


def _moment(value: datetime | str) -> datetime:
    """SQLite gives the claim log's times as text in UTC."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
