"""Decisions from a terminal: `heal approve`, `deny` and `approvals`, and `heal brake`.

A running agent is called over its HTTP API. When none answers and no `--url` was
given, the database of DATABASE_URL is written directly: the answer and the kill
switch hold for every worker that shares it, or for the next one that starts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from app.agent.approvals import answer as answering
from app.agent.identity.people import Scope
from app.agent.ids import ApprovalId
from app.agent.models import Approval, ApprovalState, KillSwitch
from app.agent.ports.store import Store
from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database
from app.cli.commands.speaker import speaker
from app.config import Settings
from app.errors import Conflict, NotEntitled
from app.schemas import (
    AnswerRequest,
    ApprovalList,
    ApprovalView,
    BrakeRequest,
    BrakesView,
    BrakeView,
    CircuitRequest,
)
from app.wire.field_errors import field_errors, in_words

_BRAKE = "/brakes/kill-switch"


def answer_of(*, approve: bool, by: str | None, comment: str) -> AnswerRequest:
    """The answer as it is sent; `CommandFailed` names what does not fit."""
    try:
        return AnswerRequest(decision="approve" if approve else "deny", by=by, comment=comment)
    except ValidationError as error:
        raise _unfit(error) from error


def brake_of(*, engaged: bool, by: str | None, reason: str) -> BrakeRequest:
    """The requested state of the kill switch; `CommandFailed` names what is invalid."""
    try:
        return BrakeRequest(engaged=engaged, by=by, reason=reason)
    except ValidationError as error:
        raise _unfit(error) from error


async def list_approvals(
    settings: Settings, url: str | None, state: ApprovalState | None, limit: int
) -> ApprovalList:
    """The newest approvals, all or those in one state."""
    agent = running_agent(settings, url)
    parameters = {"limit": str(limit)} | ({} if state is None else {"state": state.value})
    reply = await agent.ask("/approvals", parameters)
    if reply is not None:
        return agent.parsed(ApprovalList, reply)
    async with database(settings) as store:
        page = await store.approvals.find(state, limit=limit, cursor=None)
    items = [ApprovalView.of(one.approval, one.incident) for one in page.items]
    return ApprovalList(items=items, next=page.next_cursor)


async def answer(settings: Settings, url: str | None, approval_id: str, said: AnswerRequest) -> ApprovalView:
    """Approve or deny; `CommandFailed` names who answered first, or says that it is too late."""
    agent = running_agent(settings, url)
    reply = await agent.ask(f"/approvals/{quote(approval_id, safe='')}", method="POST", body=said)
    if reply is not None:
        if reply.status_code == httpx2.codes.NOT_FOUND:
            raise _unknown(approval_id)
        return agent.parsed(ApprovalView, reply)
    async with database(settings) as store:
        asked = await store.approvals.get(ApprovalId(approval_id))
        if asked is None:
            raise _unknown(approval_id)
        try:
            answered = await answering.answer(
                store.approvals,
                asked.id,
                approve=said.approve,
                by=await speaker(settings, store.credentials, said.by, Scope.APPROVE),
                comment=said.comment,
                at=datetime.now(UTC),
            )
        except (Conflict, NotEntitled) as error:
            raise CommandFailed(str(error)) from error
        return await _view(store, answered)


async def brake(settings: Settings, url: str | None) -> BrakeView:
    """The state of the kill switch."""
    agent = running_agent(settings, url)
    reply = await agent.ask(_BRAKE)
    if reply is not None:
        return agent.parsed(BrakeView, reply)
    async with database(settings) as store:
        return BrakeView.of(await store.guardrails.kill_switch())


async def brakes(settings: Settings, url: str | None) -> BrakesView | BrakeView:
    """The guardrails of a running agent; without one, the kill switch from the database."""
    agent = running_agent(settings, url)
    reply = await agent.ask("/brakes")
    return agent.parsed(BrakesView, reply) if reply is not None else await brake(settings, url)


async def close_circuit(settings: Settings, url: str | None, wanted: CircuitRequest) -> None:
    """Close a circuit breaker of a running agent, or in the database that the next one opens."""
    agent = running_agent(settings, url)
    reply = await agent.ask("/brakes/circuits/close", method="POST", body=wanted)
    if reply is not None:
        agent.parsed(BrakesView, reply)
        return
    if wanted.cluster is not None and wanted.cluster not in settings.clusters:
        raise CommandFailed(f"{wanted.cluster} is not a cluster in CLUSTERS")
    async with database(settings) as store:
        by = await speaker(settings, store.credentials, wanted.by, Scope.OPERATE)
        said = KillSwitch(engaged=False, by=by.name, reason=wanted.reason, at=datetime.now(UTC))
        await store.guardrails.close_circuit(wanted.key, said, person=by)


def circuit_of(
    *, service: str | None, environment: str | None, cluster: str | None, by: str | None, reason: str
) -> CircuitRequest:
    """The breaker to close; `CommandFailed` names what does not fit."""
    try:
        return CircuitRequest(service=service, environment=environment, cluster=cluster, by=by, reason=reason)
    except ValidationError as error:
        raise _unfit(error) from error


async def set_brake(settings: Settings, url: str | None, wanted: BrakeRequest) -> BrakeView:
    """Engage or release the kill switch."""
    agent = running_agent(settings, url)
    reply = await agent.ask(_BRAKE, method="PUT", body=wanted)
    if reply is not None:
        return agent.parsed(BrakeView, reply)
    async with database(settings) as store:
        by = await speaker(settings, store.credentials, wanted.by, Scope.OPERATE)
        set_to = KillSwitch(engaged=wanted.engaged, by=by.name, reason=wanted.reason, at=datetime.now(UTC))
        await store.guardrails.set_kill_switch(set_to, person=by)
    return BrakeView.of(set_to)


async def _view(store: Store, approval: Approval) -> ApprovalView:
    record = await store.incidents.get(approval.incident_id)
    if record is None:
        raise _unknown(approval.id)
    return ApprovalView.of(approval, record.incident)


def _unknown(approval_id: str) -> CommandFailed:
    return CommandFailed(f"no approval {approval_id!r} exists; `heal approvals` lists the pending ones")


def _unfit(error: ValidationError) -> CommandFailed:
    return CommandFailed(in_words(field_errors([dict(item) for item in error.errors(include_url=False)])))
