"""The catalogues over HTTP: services with their history, approved runbooks, and policies in force."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.agent.ids import ServiceKey
from app.agent.models import ActionName, Cause, IncidentState
from app.agent.ports.store.history import KnownService
from app.agent.runbooks import Runbook
from app.agent.workload import ConfigRecord, RevisionHealth, RevisionRecord
from app.wire.fields import LABEL, MAX_LABEL_CHARS, DnsLabel, PageLimit
from app.wire.statistics import DecisionStatsView, ReasonStatsView, RunbookStatsView

_ServiceCursor = Annotated[
    str, StringConstraints(pattern=f"^{LABEL}/{LABEL}$", max_length=2 * MAX_LABEL_CHARS + 1)
]


class ServicesQuery(BaseModel):
    """Query parameters of `GET /v1/services`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: _ServiceCursor | None = None
    environment: DnsLabel | None = None
    q: Annotated[str, StringConstraints(max_length=MAX_LABEL_CHARS, pattern="^[-a-z0-9]*$")] = Field(
        default="", description="Part of the name.", examples=["payments"]
    )

    @property
    def after(self) -> ServiceKey | None:
        """The service that the previous page ended with."""
        if self.cursor is None:
            return None
        environment, _, service = self.cursor.partition("/")
        return ServiceKey(environment=environment, service=service)


class ServiceView(BaseModel):
    """A service of which something is on record, with its newest incident."""

    environment: str
    service: str
    incident: str | None = Field(description="The id of its newest incident.")
    state: IncidentState | None
    opened_at: datetime | None

    @classmethod
    def of(cls, known: KnownService) -> Self:
        return cls(
            environment=known.key.environment,
            service=known.key.service,
            incident=known.incident_id,
            state=known.state,
            opened_at=known.opened_at,
        )


class ServicePage(BaseModel):
    """One page of services, by environment and name."""

    items: list[ServiceView]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")

    @classmethod
    def of(cls, known: Sequence[KnownService], limit: int) -> Self:
        """A page of at most `limit`; one more than that says that there is a next page."""
        items = [ServiceView.of(one) for one in known[:limit]]
        more = len(known) > limit
        return cls(items=items, next=f"{items[-1].environment}/{items[-1].service}" if more else None)


class RevisionView(BaseModel):
    """A version of the workload that was seen to serve well, or to fail."""

    number: int
    template_hash: str
    health: RevisionHealth
    seen_at: datetime
    reason: str

    @classmethod
    def of(cls, one: RevisionRecord) -> Self:
        return cls(
            number=one.number,
            template_hash=one.template_hash,
            health=one.health,
            seen_at=one.seen_at,
            reason=one.reason,
        )


class ConfigVersionView(BaseModel):
    """A version of a ConfigMap that was in force; its contents are not shown."""

    name: str
    content_hash: str
    health: RevisionHealth
    seen_at: datetime
    keys: list[str]

    @classmethod
    def of(cls, one: ConfigRecord) -> Self:
        return cls(
            name=one.name,
            content_hash=one.content_hash,
            health=one.health,
            seen_at=one.seen_at,
            keys=sorted(one.data),
        )


class ServiceHistoryView(BaseModel):
    """The versions of one service that are on record, newest first."""

    environment: str
    service: str
    revisions: list[RevisionView]
    configs: list[ConfigVersionView]


class RunbookStepView(BaseModel):
    """One action of a runbook."""

    action: ActionName
    parameters: dict[str, str | int | float | bool | None]


class RunbookView(BaseModel):
    """One approved runbook."""

    id: str
    version: int
    title: str
    causes: list[Cause]
    min_confidence: float = Field(description="The runbook is not chosen below it.")
    steps: list[RunbookStepView]
    escalate: list[str] = Field(description="Instructions for a person, in place of steps.")
    environments: list[str] = Field(description="Where it applies; empty: everywhere.")
    services: list[str] = Field(description="For which services; empty: all.")
    kinds: list[str] = Field(description="For which kinds of workloads; empty: all.")
    hash: str
    source: str = Field(description="The file.")

    @classmethod
    def of(cls, runbook: Runbook) -> Self:
        return cls(
            id=runbook.id,
            version=runbook.version,
            title=runbook.title,
            causes=list(runbook.causes),
            min_confidence=runbook.min_confidence,
            steps=[RunbookStepView(action=s.action, parameters=dict(s.parameters)) for s in runbook.steps],
            escalate=list(runbook.escalate),
            environments=list(runbook.scope.environments),
            services=list(runbook.scope.services),
            kinds=list(runbook.scope.kinds),
            hash=runbook.hash,
            source=runbook.source,
        )


class RunbookWithHistory(RunbookView):
    """An approved runbook, with what it and its earlier versions achieved."""

    history: list[RunbookStatsView] = Field(description="By version, over the last 90 days; newest first.")


class RunbookPage(BaseModel):
    """The catalogue in force."""

    hash: str = Field(description="Over the hashes of all runbooks.")
    items: list[RunbookWithHistory]
    retired: list[RunbookStatsView] = Field(
        description="Runbooks that are not in the catalogue any more, and what they achieved."
    )
    next: str | None = None

    @classmethod
    def of(
        cls, runbooks: Sequence[Runbook], catalogue_hash: str, results: Sequence[RunbookStatsView]
    ) -> Self:
        known = {one.id for one in runbooks}
        return cls(
            hash=catalogue_hash,
            items=[
                RunbookWithHistory(
                    **RunbookView.of(one).model_dump(),
                    history=sorted(
                        (result for result in results if _id_of(result.runbook) == one.id),
                        key=lambda result: _version_of(result.runbook),
                        reverse=True,
                    ),
                )
                for one in runbooks
            ],
            retired=[result for result in results if _id_of(result.runbook) not in known],
        )


def _id_of(reference: str) -> str:
    return reference.rpartition("@")[0]


def _version_of(reference: str) -> int:
    version = reference.rpartition("@")[2]
    return int(version) if version.isdecimal() else 0


class PolicyFileView(BaseModel):
    """One file of policies in force."""

    file: str
    hash: str = Field(description="SHA-256 of the text.")
    text: str

    @classmethod
    def of(cls, file: str, text: str) -> Self:
        return cls(file=file, hash=hashlib.sha256(text.encode()).hexdigest(), text=text)


class PolicyPage(BaseModel):
    """What decides on every action besides the built-in guardrails, and how it decided recently."""

    engine: Literal["embedded", "server", "none"] = Field(
        description="server: one of its own, whose files are not known; none: the guardrails alone decide."
    )
    source: str = Field(description="The folder, or the address of the server.")
    items: list[PolicyFileView]
    decisions: list[DecisionStatsView] = Field(description="Of the last 30 days.")
    reasons: list[ReasonStatsView] = Field(description="Why actions were denied or needed approval.")
    next: str | None = None
