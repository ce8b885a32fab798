"""The answers to what senders post: what became of each signal."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.agent.identity.people import Sender, SenderKind
from app.agent.models import DispositionKind, SignalKind
from app.agent.ports.store.signals import Accepted, SignalRecord


class AcceptedView(BaseModel):
    """The disposition of one entry of a request. It is durable before the response."""

    signal_id: str
    disposition: DispositionKind
    reason: str
    incident_id: str | None = Field(description="The incident it opened or joined.")
    duplicate_of: str | None = Field(description="The earlier signal that reported the same.")

    @classmethod
    def of(cls, accepted: Accepted) -> Self:
        disposition = accepted.disposition
        return cls(
            signal_id=accepted.signal_id,
            disposition=disposition.kind,
            reason=disposition.reason,
            incident_id=disposition.incident_id,
            duplicate_of=disposition.duplicate_of,
        )


class AcceptedList(BaseModel):
    """One item per entry of the request, in its order."""

    items: list[AcceptedView]


class UnmappedAlertView(BaseModel):
    """An alert that was not mapped to a signal, with the reason and the fix."""

    name: str
    fingerprint: str
    reason: str


class WebhookAccepted(AcceptedList):
    """One item per alert that was mapped to a signal, in order; the others with the reason."""

    unmapped: list[UnmappedAlertView]


class SenderView(BaseModel):
    """The sender of a signal, as far as known."""

    kind: SenderKind
    name: str = Field(description="The holder of the token, the webhook, the stream, or the address.")
    token_id: str | None = Field(description="The token or session that authenticated it.")
    address: str | None = Field(description="The peer of the connection.")

    @classmethod
    def of(cls, sender: Sender | None) -> Self | None:
        if sender is None:
            return None
        return cls(kind=sender.kind, name=sender.name, token_id=sender.token_id, address=sender.address)


class SignalView(BaseModel):
    """A signal and its disposition."""

    signal_id: str
    kind: SignalKind
    service: str
    environment: str
    source: str
    observed_at: datetime
    received_at: datetime
    stale: bool
    sender: SenderView | None = Field(description="Null for signals that the agent observed itself.")
    disposition: DispositionKind
    reason: str
    incident_id: str | None
    duplicate_of: str | None

    @classmethod
    def of(cls, record: SignalRecord) -> Self:
        signal, disposition = record.signal, record.disposition
        return cls(
            signal_id=signal.id,
            kind=signal.kind,
            service=signal.key.service,
            environment=signal.key.environment,
            source=signal.source,
            observed_at=signal.observed_at,
            received_at=signal.received_at,
            stale=signal.stale,
            sender=SenderView.of(signal.sender),
            disposition=disposition.kind,
            reason=disposition.reason,
            incident_id=disposition.incident_id,
            duplicate_of=disposition.duplicate_of,
        )
