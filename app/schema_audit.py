"""The audit of signals as HTTP answers it and `heal audit signals --json` prints it."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.agent.audit import SignalAudit, StrayKind
from app.agent.models import DispositionKind
from app.schema_fields import Moment


class AuditQuery(BaseModel):
    """Query parameters of `GET /audit/signals`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment | None = Field(
        default=None, description="Count what arrived on the day (UTC) of this time or later; left out: all."
    )


class StrayView(BaseModel):
    """One thing that is not as it should be."""

    kind: StrayKind
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
    more_strays: list[StrayKind] = Field(description="Kinds of which there are more than are named.")
    mended: dict[str, int] = Field(description="What sweeps have put right so far, by kind.")
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
