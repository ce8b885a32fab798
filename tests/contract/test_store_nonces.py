"""The contract of nonces: a button counts once, for what it was made for, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.identity.people import ApprovalTerms, Person
from app.agent.ids import ApprovalId
from app.agent.models import (
    Approval,
    ApprovalState,
    IncidentState,
    KillSwitch,
)
from app.agent.ports.store import Store
from app.errors import Conflict
from tests.contract.store_values import NOW, approval, claimed, key, opened
from tests.contract.test_store_approvals import asked

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

MONTH = timedelta(days=30)


async def press(store: Store, approval: ApprovalId, nonce: str | None, by: str = "ann") -> Approval:
    return await store.approvals.answer(
        approval, approve=True, by=Person(name=by), comment="", at=NOW, nonce=nonce
    )


async def test_a_button_counts_once_however_often_it_is_pressed(store: Store) -> None:
    """At the same moment, and again later."""
    _, _, request = await asked(store)
    await store.approvals.issue_nonce(request.id, "n0nce", NOW)
    ended = await asyncio.gather(
        *(press(store, request.id, "n0nce", f"person {n}") for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(one, Approval) for one in ended) == 1
    assert sum(isinstance(one, Conflict) for one in ended) == 7
    with pytest.raises(Conflict):
        await press(store, request.id, "n0nce")


async def test_a_button_is_good_for_its_own_request_alone(store: Store) -> None:
    """Neither another request's nor a made-up one answers anything; nothing is changed."""
    _, _, request = await asked(store)
    _, _, other = await asked(store, await opened(store, key(1)))
    await store.approvals.issue_nonce(other.id, "of the other", NOW)
    for wrong in ("of the other", "made up", ""):
        with pytest.raises(Conflict):
            await press(store, request.id, wrong)
    found = await store.approvals.get(request.id)
    assert found is not None
    assert (found.state, found.answers) == (ApprovalState.PENDING, ())
    assert (await press(store, other.id, "of the other")).state is ApprovalState.APPROVED


async def test_every_message_about_one_request_is_used_up_together(store: Store) -> None:
    """Whichever is pressed: the second of two people needs the message that comes after the first yes."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    request = replace(approval(incident), terms=ApprovalTerms(people=2))
    waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
    await store.approvals.request(claim, waiting, request, [])
    for nonce in ("first", "second", "third"):
        await store.approvals.issue_nonce(request.id, nonce, NOW)
    assert (await press(store, request.id, "second")).state is ApprovalState.PENDING
    for nonce in ("first", "second", "third"):
        with pytest.raises(Conflict, match="already used"):
            await press(store, request.id, nonce, "ben")
    await store.approvals.issue_nonce(request.id, "fourth", NOW)
    assert (await press(store, request.id, "fourth", "ben")).state is ApprovalState.APPROVED


async def test_a_command_that_is_sent_again_counts_once(store: Store) -> None:
    """The kill switch by a chat's own mark of the message."""
    brake = KillSwitch(engaged=True, by="ann", reason="look", at=NOW)
    await store.guardrails.set_kill_switch(brake, nonce="of the chat")
    with pytest.raises(Conflict):
        await store.guardrails.set_kill_switch(brake, nonce="of the chat")
    await store.guardrails.set_kill_switch(brake, nonce="another")


async def test_nonces_are_forgotten_once_they_are_good_for_nothing(store: Store) -> None:
    """Used ones, and those of a request that waits no more; one that waits keeps its buttons."""
    claim, waiting, request = await asked(store)
    await store.approvals.issue_nonce(request.id, "waits", NOW - 2 * MONTH)
    await store.credentials.forget(NOW - MONTH)
    assert (await press(store, request.id, "waits")).state is ApprovalState.APPROVED
    await store.credentials.forget(NOW + MONTH)
    await store.approvals.issue_nonce(request.id, "waits", NOW)
    assert (await claimed(store, waiting)).token == claim.token
