"""What an informer promises whatever is behind it: its store follows the collection and loses nothing."""

from __future__ import annotations

from typing import Protocol

from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.reading.informer import Informer
from app.connectors.kubernetes.reading.pruning import pruned
from tests.contract.collection import kept

MANY = 110
"""More ConfigMaps than a page holds."""


class InformerHarness(Protocol):
    """A collection of ConfigMaps, the informer that follows it, and the network between them."""

    informer: Informer

    async def begin(self) -> None:
        """Start the informer."""
        ...

    async def put(self, name: str, value: str) -> None: ...
    async def delete(self, name: str) -> None: ...

    async def cut(self) -> None:
        """Break the open watch; while the network is down nothing can be listed or watched."""
        ...

    async def restore(self) -> None:
        """The network works again."""
        ...

    async def expire(self) -> None:
        """Break the open watch; the next one is answered with 410."""
        ...

    async def fresh(self) -> dict[str, JsonObject]:
        """The collection as a list gives it now, by name."""
        ...

    async def follows(self) -> None:
        """Return once the store is the collection; fails at a deadline."""
        ...

    def asked(self) -> tuple[int, int]:
        """How many pages were listed, and how many watches were begun."""
        ...


async def test_a_list_of_several_pages_is_followed_by_one_watch(shelf: InformerHarness) -> None:
    """Created, changed and deleted objects arrive without another list."""
    for number in range(MANY):
        await shelf.put(f"config-{number}", "a")
    await shelf.begin()
    await shelf.follows()
    pages, _ = shelf.asked()
    assert pages >= 2
    await shelf.put("config-3", "b")
    await shelf.delete("config-4")
    await shelf.put("new", "c")
    await shelf.follows()
    assert shelf.asked() == (pages, 1)


async def test_an_abrupt_close_is_resumed_without_a_list(shelf: InformerHarness) -> None:
    """What happened while the network was down is delivered by the next watch."""
    for name in ("one", "two", "three"):
        await shelf.put(name, "a")
    await shelf.begin()
    await shelf.follows()
    pages, _ = shelf.asked()
    await shelf.cut()
    await shelf.put("one", "b")
    await shelf.delete("two")
    await shelf.restore()
    await shelf.follows()
    assert shelf.asked()[0] == pages


async def test_an_expired_version_leads_to_one_list(shelf: InformerHarness) -> None:
    """410: what was deleted meanwhile is gone from the store as well."""
    for name in ("one", "two"):
        await shelf.put(name, "a")
    await shelf.begin()
    await shelf.follows()
    pages, _ = shelf.asked()
    await shelf.cut()
    await shelf.delete("one")
    await shelf.put("three", "c")
    await shelf.expire()
    await shelf.restore()
    await shelf.follows()
    assert shelf.asked()[0] == pages + 1
    assert set(kept(shelf.informer)) == set(await shelf.fresh())


async def test_no_content_of_a_config_map_is_kept(shelf: InformerHarness) -> None:
    """Names of keys and a hash, which changes with the data."""
    await shelf.put("one", "swordfish")
    await shelf.begin()
    await shelf.follows()
    before = kept(shelf.informer)["one"]
    assert "swordfish" not in str(before)
    await shelf.put("one", "angelfish")
    await shelf.follows()
    assert kept(shelf.informer)["one"] != before
    assert pruned(Kind.CONFIG_MAP, (await shelf.fresh())["one"]) == kept(shelf.informer)["one"]
