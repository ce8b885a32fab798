"""The audit of signals and of people as HTTP answers it and `heal audit ... --json` prints it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.agent.audit.accounting import DiscrepancyKind, SignalAudit
from app.agent.identity.audit_log import AuditLogEntry, HumanDecisionKind
from app.agent.identity.people import Door
from app.agent.models import DispositionKind
from app.wire.fields import Moment

MAX_SEQUENCE = 2**31 - 1
"""The highest sequence that every database can keep."""


class AuditQuery(BaseModel):
    """Query parameters of `GET /audit/signals`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment | None = Field(
        default=None, description="Count what arrived on the day (UTC) of this time or later; left out: all."
    )


class StrayView(BaseModel):
    """One thing that is not as it should be."""

    kind: DiscrepancyKind
    id: str = Field(description="Of the signal, incident or intent.")
    detail: str


class UnevenDayView(BaseModel):
    """A day (UTC) on which what was accepted and what is accounted for differ."""

    day: date
    accepted: int
    accounted: int


class SignalAuditView(BaseModel):
    """The sum over every accepted signal: `present` and `forgotten` make up `accepted`, or one is lost."""

    adds_up: bool
    since: date | None
    accepted: int
    unledgered: int = Field(description="Of these, accepted by an older program and not yet in the ledger.")
    accounted: int
    present: dict[DispositionKind, int]
    forgotten: dict[DispositionKind, int] = Field(
        description="Led to nothing, and were forgotten when they were older than SIGNAL_RETENTION_DAYS."
    )
    uneven_days: list[UnevenDayView]
    strays: list[StrayView]
    more_strays: list[DiscrepancyKind] = Field(description="Kinds of which there are more than are named.")
    mended: dict[str, int] = Field(description="Number of repairs by sweeps, by kind.")
    deep: bool

    @classmethod
    def of(cls, audit: SignalAudit) -> Self:
        return cls(
            adds_up=audit.adds_up,
            since=audit.since,
            accepted=audit.accepted,
            unledgered=audit.unledgered,
            accounted=audit.accounted,
            present=dict(audit.present),
            forgotten=dict(audit.forgotten),
            uneven_days=[
                UnevenDayView(day=one.day, accepted=one.accepted, accounted=one.accounted)
                for one in audit.uneven_days
            ],
            strays=[StrayView(kind=one.kind, id=one.id, detail=one.detail) for one in audit.strays.found],
            more_strays=list(audit.strays.more),
            mended=dict(audit.mended),
            deep=audit.deep,
        )


class TrailQuery(BaseModel):
    """Query parameters of `GET /audit/people`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int = Field(default=-1, ge=-1, le=MAX_SEQUENCE, description="Only entries with a higher sequence.")
    limit: int = Field(default=100, ge=1, le=1000)


class TrailEntryView(BaseModel):
    """One decision of one person."""

    sequence: int
    at: datetime
    by: str
    door: Door
    verified: bool = Field(description="Authenticated by token, sign-in or signature.")
    kind: HumanDecisionKind
    subject: str = Field(description="What it was about: an approval, a token, a service, or empty.")
    data: dict[str, JsonValue]
    hash: str

    @classmethod
    def of(cls, entry: AuditLogEntry) -> Self:
        return cls(
            sequence=entry.sequence,
            at=entry.at,
            by=entry.by,
            door=entry.door,
            verified=entry.verified,
            kind=entry.kind,
            subject=entry.subject,
            data=dict(entry.data),
            hash=entry.hash,
        )

    def entry(self) -> AuditLogEntry:
        """The entry itself, to check the chain with."""
        return AuditLogEntry(**{name: getattr(self, name) for name in type(self).model_fields})


class TrailView(BaseModel):
    """A part of the audit trail, oldest first. `next` is the `after` of the next part, null at the end."""

    items: list[TrailEntryView]
    next: int | None

    @classmethod
    def of(cls, entries: tuple[AuditLogEntry, ...], limit: int) -> Self:
        more = len(entries) == limit
        return cls(
            items=[TrailEntryView.of(one) for one in entries],
            next=entries[-1].sequence if more else None,
        )
