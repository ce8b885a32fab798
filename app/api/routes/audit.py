"""`GET /audit/...`: dispositions of accepted signals (promise 9); decisions of people (promise 12)."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.audit.accounting import AuditQuestion, allowed_wait
from app.agent.identity.people import Scope
from app.api.dependencies import ContainerDep, EachParameterOnce
from app.api.openapi import problems
from app.api.security.access import needs
from app.wire.audit import (
    AuditQuery,
    SignalAuditView,
    TrailQuery,
    TrailView,
)

router = APIRouter(tags=["audit"])


@router.get(
    "/audit/signals",
    response_model=SignalAuditView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Audit the accepted signals: counts by disposition, and discrepancies",
)
async def audit_signals(query: Annotated[AuditQuery, Query()], container: ContainerDep) -> SignalAuditView:
    question = AuditQuestion(
        now=container.clock.now(),
        pending_for=allowed_wait(container.intake.rules.slo.longest_gap),
        since=None if query.since is None else query.since.astimezone(UTC).date(),
    )
    return SignalAuditView.of(await container.store.accounting.audit(question))


@router.get(
    "/audit/people",
    response_model=TrailView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.ADMIN)],
    summary="List decisions of people, oldest first, as a hash chain: answers, guardrails, tokens, sign-ins",
)
async def audit_people(query: Annotated[TrailQuery, Query()], container: ContainerDep) -> TrailView:
    """The hash of each entry covers the previous hash; `heal audit people` checks the whole chain."""
    return TrailView.of(
        await container.store.audit_log.entries(after=query.after, limit=query.limit), query.limit
    )
