"""Which incidents a report is about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.agent.analytics.report import DAILY_UP_TO, MANUAL, StatsFilter
from app.agent.models import Cause
from app.agent.responders.attention import IncidentSeverity
from app.wire.fields import DnsLabel, MomentOrSpan, _plain_digits

_MINUTES_OF_A_WEEK = 7 * 24 * 60


class StatsQuery(BaseModel):
    """Query parameters of `GET /v1/stats`: incidents opened with since <= t < until."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: MomentOrSpan = timedelta(days=30)
    until: MomentOrSpan | None = None
    environment: DnsLabel | None = None
    service: DnsLabel | None = None
    cause: Cause | None = None
    severity: IncidentSeverity | None = None
    interval: Literal["auto", "day", "week"] = Field(
        default="auto", description="Of the trend; auto: days up to 92 days, weeks above."
    )
    manual_minutes: Annotated[int, BeforeValidator(_plain_digits)] = Field(
        default=round(MANUAL.total_seconds() / 60),
        ge=0,
        le=_MINUTES_OF_A_WEEK,
        description="The assumption behind the time saved: what a person would have needed for an incident.",
    )

    def filter_at(self, now: datetime) -> StatsFilter:
        """The filter; raises `PydanticCustomError` for a period that is empty."""
        since, until = _moment(self.since, now), now if self.until is None else _moment(self.until, now)
        if since >= until:
            raise PydanticCustomError("empty_period", "is not later than since")
        weekly = self.interval == "week" or (self.interval == "auto" and until - since > DAILY_UP_TO)
        return StatsFilter(
            since=since,
            until=until,
            environment=self.environment,
            service=self.service,
            cause=self.cause,
            severity=self.severity,
            weekly=weekly,
            manual=timedelta(minutes=self.manual_minutes),
        )


def _moment(given: datetime | timedelta, now: datetime) -> datetime:
    """A length of time counts back from now, to the year 1 at most."""
    if isinstance(given, datetime):
        return given
    earliest = datetime(1, 1, 1, tzinfo=now.tzinfo)
    return now - given if given < now - earliest else earliest
