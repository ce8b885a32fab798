"""Each aggregate has one port and one repository, and the two agree."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from sqlalchemy.engine import make_url

from app.agent.ports.store import Store
from app.store import store_over
from app.store.database.repository import Repository
from app.store.database.sqlite import open_sqlite

PORTS = {name: port for name, port in get_type_hints(Store).items() if isinstance(port, type)}
MOST_METHODS = 15


def _public(kind: type) -> set[str]:
    inherited = set(dir(Repository))
    return {name for name in dir(kind) if not name.startswith("_") and name not in inherited}


async def test_a_repository_has_the_methods_of_its_port_and_no_others(tmp_path: Path) -> None:
    """A method that no port declares has no caller, and a port without a method has no implementation."""
    database = await open_sqlite(make_url(f"sqlite:///{tmp_path}/heal.db"))
    try:
        store = store_over(database)
        assert set(PORTS) == {one.name for one in fields(Store)} - {"ping", "close"}
        for name, port in PORTS.items():
            repository = type(getattr(store, name))
            assert issubclass(repository, Repository)
            assert _public(repository) == _public(port), name
    finally:
        await database.close()


@pytest.mark.parametrize("name", sorted(PORTS))
def test_a_port_stays_small(name: str) -> None:
    """A role that needs more methods than this is two roles."""
    assert 0 < len(_public(PORTS[name])) <= MOST_METHODS
