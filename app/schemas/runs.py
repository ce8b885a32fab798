"""One pass of the loop on request, and what it did."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.incidents import IncidentView
from app.schemas.timeline import StepView
from app.wire.fields import DnsLabel


class RunOnceQuery(BaseModel):
    """Query parameters of `POST /agent/run-once`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: DnsLabel = Field(examples=["payments-api"])
    environment: DnsLabel | None = Field(
        default=None, description="Default: every environment of the service."
    )


class RunOnceView(BaseModel):
    """The result of one pass of the loop."""

    service: str
    environment: str | None
    incidents: list[IncidentView]
    steps: list[StepView] = Field(description="The timeline entries that this pass added.")
    summary: str
