"""The contract of history: what served well and what failed, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.ids import ServiceKey
from app.agent.ports.store import Store
from app.agent.workload import ConfigRecord, RevisionHealth, RevisionRecord
from tests.contract.store_values import NOW, PAYMENTS

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

HOUR = timedelta(hours=1)
WELL, FAILED, UNKNOWN = RevisionHealth.SERVED_WELL, RevisionHealth.FAILED, RevisionHealth.UNKNOWN


def revision(
    number: int = 1, health: RevisionHealth = UNKNOWN, *, template: str = "t", hours: int = 0
) -> RevisionRecord:
    return RevisionRecord(
        key=PAYMENTS,
        template_hash=template,
        number=number,
        health=health,
        seen_at=NOW + hours * HOUR,
        reason=f"{health} at {hours}",
    )


def config(
    content: str = "c", health: RevisionHealth = UNKNOWN, *, hours: int = 0, name: str = "settings"
) -> ConfigRecord:
    return ConfigRecord(
        key=PAYMENTS,
        name=name,
        content_hash=content,
        data={"app.yaml": f"content {content}\n", "empty": ""},
        health=health,
        seen_at=NOW + hours * HOUR,
    )


async def test_revisions_are_given_newest_first(store: Store) -> None:
    """Of one service only, ordered by when they were last seen."""
    records = [revision(n, template=f"t{n}", hours=hours) for n, hours in ((1, 2), (2, 3), (3, 1))]
    for record in records:
        await store.history.record_revision(record)
    await store.history.record_revision(
        replace(revision(), key=ServiceKey(environment="dev", service="payments-api"))
    )
    assert await store.history.revisions(PAYMENTS) == (records[1], records[0], records[2])


async def test_at_most_fifty_revisions_are_given(store: Store) -> None:
    """The oldest are left out."""
    for n in range(52):
        await store.history.record_revision(revision(n, template=f"t{n}", hours=n))
    found = await store.history.revisions(PAYMENTS)
    assert [record.number for record in found] == list(range(51, 1, -1))


@pytest.mark.parametrize("later", [WELL, UNKNOWN])
async def test_a_failed_revision_stays_failed(store: Store, later: RevisionHealth) -> None:
    """Neither a good moment nor ignorance makes a failed template a target of rollback again."""
    await store.history.record_revision(revision(health=FAILED))
    await store.history.record_revision(revision(health=later, hours=1))
    assert await store.history.revisions(PAYMENTS) == (revision(health=FAILED),)


@pytest.mark.parametrize(("before", "after"), [(UNKNOWN, WELL), (UNKNOWN, FAILED), (WELL, FAILED)])
async def test_new_knowledge_of_a_revision_is_kept(
    store: Store, before: RevisionHealth, after: RevisionHealth
) -> None:
    """Judgement replaces ignorance, and failure replaces success."""
    await store.history.record_revision(revision(health=before))
    await store.history.record_revision(revision(2, after, hours=1))
    assert await store.history.revisions(PAYMENTS) == (revision(2, after, hours=1),)


async def test_seeing_a_good_revision_again_does_not_forget_that_it_was_good(store: Store) -> None:
    """An unjudged sighting moves number and time; health and its reason stay."""
    good = revision(health=WELL)
    await store.history.record_revision(good)
    await store.history.record_revision(revision(5, hours=1))
    assert await store.history.revisions(PAYMENTS) == (replace(good, number=5, seen_at=NOW + HOUR),)


async def test_a_late_record_does_not_turn_back_time(store: Store) -> None:
    """A record that arrives after a newer one of the same health changes nothing."""
    await store.history.record_revision(revision(2, WELL, hours=2))
    await store.history.record_revision(revision(1, WELL, hours=1))
    assert await store.history.revisions(PAYMENTS) == (revision(2, WELL, hours=2),)


async def test_concurrent_records_of_one_revision_agree(store: Store) -> None:
    """Many watchers tell the same thing at once, and failure wins."""
    healths = [UNKNOWN, WELL, FAILED, UNKNOWN, WELL]
    await asyncio.gather(*(store.history.record_revision(revision(health=health)) for health in healths * 4))
    assert [record.health for record in await store.history.revisions(PAYMENTS)] == [FAILED]


async def test_configs_are_given_newest_first_with_their_data(store: Store) -> None:
    """A version put into force again is the newest again."""
    first, second = config("a", WELL), config("b", hours=1)
    await store.history.record_config(first)
    await store.history.record_config(second)
    assert await store.history.configs(PAYMENTS) == (second, first)
    await store.history.record_config(config("a", hours=2))
    assert await store.history.configs(PAYMENTS) == (config("a", WELL, hours=2), second)


async def test_a_failed_config_stays_failed(store: Store) -> None:
    """What failed is not restored because it was seen again."""
    await store.history.record_config(config(health=FAILED))
    await store.history.record_config(config(health=WELL, hours=1))
    assert await store.history.configs(PAYMENTS) == (config(health=FAILED),)


async def test_twenty_versions_are_kept_for_each_name(store: Store) -> None:
    """The oldest of a name go; other names are untouched."""
    other = config("x", name="other")
    await store.history.record_config(other)
    for n in range(23):
        await store.history.record_config(config(f"c{n}", hours=1 + n))
    found = await store.history.configs(PAYMENTS)
    assert [record.content_hash for record in found if record.name == "settings"] == [
        f"c{n}" for n in range(22, 2, -1)
    ]
    assert other in found


async def test_the_last_good_version_outlives_many_unknown_ones(store: Store) -> None:
    """A storm of edits cannot push out the one version worth going back to."""
    await store.history.record_config(config("older", WELL))
    await store.history.record_config(config("good", WELL, hours=1))
    for n in range(25):
        await store.history.record_config(config(f"c{n}", hours=2 + n))
    found = [record.content_hash for record in await store.history.configs(PAYMENTS)]
    assert len(found) == 20
    assert "good" in found
    assert "older" not in found
