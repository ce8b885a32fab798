"""`GET /audit/signals`: the proof that every accepted signal has its end (promise 9)."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.audit import AuditQuestion, allowed_wait
from app.api.dependencies import ContainerDep, EachParameterOnce
from app.api.openapi import problems
from app.schema_audit import AuditQuery, SignalAuditView

router = APIRouter(tags=["audit"])


@router.get(
    "/audit/signals",
    response_model=SignalAuditView,
    responses=problems(422, 503),
    dependencies=[EachParameterOnce],
    summary="Whether every accepted signal is accounted for, and what has gone astray",
)
async def audit_signals(query: Annotated[AuditQuery, Query()], container: ContainerDep) -> SignalAuditView:
    question = AuditQuestion(
        now=container.clock.now(),
        pending_for=allowed_wait(container.intake.rules.slo.longest_gap),
        since=None if query.since is None else query.since.astimezone(UTC).date(),
    )
    return SignalAuditView.of(await container.store.audit(question))
