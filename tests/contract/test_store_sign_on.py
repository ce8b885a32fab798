"""A sign-in has one session at most, over SQLite and PostgreSQL, however often it is finished."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind, first_broken
from app.agent.identity.people import (
    CredentialKind,
    Door,
    Issued,
    Person,
    issue,
)
from app.agent.ports.store import Store
from app.errors import Conflict
from tests.contract.store_values import NOW

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

ANN = Person(name="ann", door=Door.PAGE, verified=True)


def session() -> tuple[Issued, HumanDecision]:
    made = issue(
        CredentialKind.SESSION,
        "ann",
        roles={"sre"},
        scopes=(),
        by="ann",
        at=NOW,
        lifetime=timedelta(hours=12),
    )
    return made, HumanDecision(at=NOW, by=ANN, kind=HumanDecisionKind.SIGNED_ON, subject=made.credential.id)


async def test_a_nonce_seen_before_keeps_nothing(store: Store) -> None:
    """Neither the credential nor its entry of the trail; another nonce, and none, are free."""
    first, human_decision = session()
    await store.credentials.add(first.credential, human_decision, nonce="once")
    second, again = session()
    with pytest.raises(Conflict):
        await store.credentials.add(second.credential, again, nonce="once")
    assert await store.credentials.get(first.credential.id) == first.credential
    assert await store.credentials.get(second.credential.id) is None
    await store.credentials.add(second.credential, again, nonce="another")
    third, unbound = session()
    await store.credentials.add(third.credential, unbound)
    assert [entry.subject for entry in await store.audit_log.entries(after=-1, limit=10)] == [
        first.credential.id,
        second.credential.id,
        third.credential.id,
    ]


async def test_of_many_at_once_one_counts(store: Store) -> None:
    """The others get that answer; the audit trail stays whole."""
    made = [session() for _ in range(10)]
    said = await asyncio.gather(
        *(
            store.credentials.add(one.credential, human_decision, nonce="once")
            for one, human_decision in made
        ),
        return_exceptions=True,
    )
    assert [type(one) for one in said if one is not None] == [Conflict] * 9
    trail = await store.audit_log.entries(after=-1, limit=10)
    assert len(trail) == 1
    assert first_broken(trail) is None
