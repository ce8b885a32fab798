"""`heal services list`: the services on record, from a running agent or its SQLite file."""

from __future__ import annotations

from pydantic import ValidationError
from rich.table import Table

from app.agent.evidence.format import in_words
from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import local_store
from app.cli.commands.output import printable
from app.config import Settings
from app.wire.catalogues import ServicePage, ServicesQuery
from app.wire.field_errors import field_errors

_PAGE = 100


async def services(
    settings: Settings, url: str | None, *, environment: str | None, search: str, limit: int
) -> ServicePage:
    """At most `limit` services; `next` is set if there are more."""
    try:
        ServicesQuery(environment=environment, q=search)
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        raise CommandFailed("; ".join(f"{one.field} {one.message}: {one.fix}" for one in found)) from error
    agent = running_agent(settings, url)
    page = ServicePage(items=[], next=None)
    while len(page.items) < limit:
        given = {"environment": environment, "q": search or None, "cursor": page.next}
        parameters = {name: value for name, value in given.items() if value is not None}
        parameters["limit"] = str(min(_PAGE, limit - len(page.items)))
        reply = await agent.ask("/v1/services", parameters)
        if reply is None:
            return await _of_file(settings, environment, search, limit)
        part = agent.parsed(ServicePage, reply)
        page = ServicePage(items=[*page.items, *part.items], next=part.next)
        if page.next is None:
            break
    return page


async def _of_file(settings: Settings, environment: str | None, search: str, limit: int) -> ServicePage:
    store = await local_store(settings)
    try:
        found = await store.history.services(
            environment=environment, text=search, after=None, limit=limit + 1
        )
    finally:
        await store.close()
    return ServicePage.of(found, limit)


def table(page: ServicePage) -> Table:
    """One service a row."""
    found = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("SERVICE", "ENVIRONMENT", "NEWEST INCIDENT", "OPENED", "ID"):
        found.add_column(heading, overflow="fold")
    for one in page.items:
        opened = f"{one.opened_at:%Y-%m-%d %H:%M:%S}" if one.opened_at is not None else "-"
        state = in_words(one.state) if one.state is not None else "none"
        found.add_row(printable(one.service), printable(one.environment), state, opened, one.incident or "-")
    return found
