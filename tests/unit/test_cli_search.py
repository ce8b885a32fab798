"""Searches from the command line: a store answers them in parts, and each part may be short."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.agent.ids import IncidentId, ServiceKey
from app.cli.commands import short_ids
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import Wanted, list_incidents
from app.cli.commands.short_ids import incident_id
from app.config import Settings
from app.store import open_store
from app.store.incidents import repository
from tests.contract.store_values import NOW, opened
from tests.sqlite_template import migrated
from tests.unit.heal_command import free_port


async def on_record(folder: Path, *names: str) -> tuple[Settings, list[IncidentId]]:
    """An incident of each service, in this order, and no agent that runs."""
    path = migrated(folder / "heal.db")
    store = await open_store(path)
    ids = []
    for number, name in enumerate(names):
        key = ServiceKey(environment="prod", service=name)
        ids.append((await opened(store, key, at=NOW + timedelta(minutes=number))).id)
    await store.close()
    return Settings(_env_file=None, database_url=SecretStr(path), port=free_port()), ids


def wanted(text: str, limit: int) -> Wanted:
    return Wanted(service=None, environment=None, state=None, since=None, until=None, limit=limit, text=text)


async def test_a_search_goes_on_until_it_has_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty part of the record is no answer, and a full page says that there may be more."""
    monkeypatch.setattr(repository, "SEARCHED_AT_ONCE", 1)
    settings, ids = await on_record(tmp_path, "payments-api", "shop", "payments-worker", "ledger", "login")
    page = await list_incidents(settings, None, wanted("payments", 9))
    assert ([one.id for one in page.items], page.next) == ([ids[2], ids[0]], None)
    page = await list_incidents(settings, None, wanted("payments", 1))
    assert [one.id for one in page.items] == [ids[2]]
    assert page.next is not None
    assert (await list_incidents(settings, None, wanted("nothing", 9))).items == []


async def test_a_short_id_is_found_behind_others_that_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its characters may be in the name of newer services, and in older parts of the record."""
    monkeypatch.setattr(repository, "SEARCHED_AT_ONCE", 2)
    monkeypatch.setattr(short_ids, "_PAGE", 1)
    first, ids = await on_record(tmp_path, "shop")
    short = ids[0].removeprefix("inc_")[:10]
    await on_record(tmp_path, short, f"{short}-b", "ledger", "login", "search")
    assert await incident_id(first, None, short) == ids[0]
    assert await incident_id(first, None, f"inc_{short}") == ids[0]


async def test_ids_that_begin_alike_are_found_in_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest of them is not taken for the only one."""
    monkeypatch.setattr(repository, "SEARCHED_AT_ONCE", 1)
    settings, ids = await on_record(tmp_path, *(f"service-{number}" for number in range(24)))
    monkeypatch.setattr(short_ids, "_is_short", lambda _: True)
    beginnings = [one.removeprefix("inc_")[0] for one in ids]
    common = max(beginnings, key=beginnings.count)
    assert beginnings.count(common) > 1
    with pytest.raises(CommandFailed, match=f"the beginning of {beginnings.count(common)} ids"):
        await incident_id(settings, None, common)
