"""Guardrails: the requests that set the kill switch and close a circuit breaker, and their state."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.agent.guardrails.status import CircuitKey, CircuitStatus, FreezeStatus, GuardrailStatus
from app.agent.ids import ServiceKey
from app.agent.models import KillSwitch
from app.wire.events import _Request
from app.wire.fields import TAKEN_FROM_IDENTITY, DnsLabel, Person, Remark


class BrakeRequest(_Request):
    """The new state of the kill switch."""

    engaged: bool
    by: Person | None = Field(
        default=None, description=f"Who sets it. {TAKEN_FROM_IDENTITY}", examples=["ann"]
    )
    reason: Remark = Field(
        default="",
        validate_default=True,
        description="Required to engage it.",
        examples=["database migration until 18:00"],
    )

    @field_validator("reason")
    @classmethod
    def _says_why(cls, reason: str, info: ValidationInfo) -> str:
        if info.data.get("engaged") and not reason:
            raise PydanticCustomError("no_reason", "is missing: the record requires a reason")
        return reason


class CircuitRequest(_Request):
    """Close a circuit breaker: failures until now no longer count."""

    environment: DnsLabel | None = Field(
        default=None, description="With `service`; without both, the breaker of a cluster."
    )
    service: DnsLabel | None = None
    cluster: DnsLabel | None = Field(
        default=None, description="One of CLUSTERS; not set: the cluster without a name."
    )
    by: Person | None = Field(
        default=None, description=f"Who closes it. {TAKEN_FROM_IDENTITY}", examples=["ann"]
    )
    reason: Remark = Field(min_length=1, examples=["the registry is back"])

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.environment is None) is not (self.service is None):
            raise PydanticCustomError(
                "half_a_service", "names only half of a service: give environment and service"
            )
        if self.cluster is not None and self.service is not None:
            raise PydanticCustomError("two_breakers", "names a service and a cluster: give one of them")
        return self

    @property
    def key(self) -> CircuitKey:
        """What the breaker belongs to."""
        if self.environment is not None and self.service is not None:
            return ServiceKey(environment=self.environment, service=self.service)
        return self.cluster


class BrakeView(BaseModel):
    """The kill switch: while it is engaged, no new action starts; undo and verification continue."""

    engaged: bool
    by: str | None = Field(description="Who set it last; null when it was never set.")
    reason: str
    at: datetime | None

    @classmethod
    def of(cls, brake: KillSwitch | None) -> Self:
        if brake is None:
            return cls(engaged=False, by=None, reason="", at=None)
        return cls(engaged=brake.engaged, by=brake.by, reason=brake.reason, at=brake.at)


class FreezeView(BaseModel):
    """A freeze window of FREEZE_WINDOWS: no action starts within it."""

    name: str
    environments: list[str] = Field(description="Affected environments; empty: all.")
    services: list[str] = Field(description="Affected services; empty: all.")
    holds_until: datetime | None = Field(description="End of the window; set while it is active.")
    next_start: datetime | None

    @classmethod
    def of(cls, status: FreezeStatus) -> Self:
        window = status.window
        return cls(
            name=window.name,
            environments=list(window.environments),
            services=list(window.services),
            holds_until=status.holds_until,
            next_start=status.next_start,
        )


class CircuitView(BaseModel):
    """A circuit breaker that is open, or half-open with an action in progress."""

    environment: str | None = Field(description="Null for the breaker of a cluster.")
    service: str | None
    cluster: str | None = Field(
        default=None,
        description="The name of the cluster, where it has one.",
        exclude_if=lambda name: name is None,
    )
    reason: str

    @classmethod
    def of(cls, status: CircuitStatus) -> Self:
        key = status.key
        return cls(
            environment=key.environment if isinstance(key, ServiceKey) else None,
            service=key.service if isinstance(key, ServiceKey) else None,
            cluster=key if isinstance(key, str) else None,
            reason=status.reason,
        )


class BrakesView(BaseModel):
    """The guardrails that block new actions now; undo and verification continue."""

    kill_switch: BrakeView
    freezes: list[FreezeView]
    circuits: list[CircuitView] = Field(
        description="Circuit breakers that are not closed; the breaker of the cluster is first."
    )

    @classmethod
    def of(cls, status: GuardrailStatus) -> Self:
        return cls(
            kill_switch=BrakeView.of(status.kill_switch),
            freezes=[FreezeView.of(freeze) for freeze in status.freezes],
            circuits=[CircuitView.of(circuit) for circuit in status.circuits],
        )
