"""`Channel` over a paging service: one alert for each incident that needs a person.

Built only when `DRY_RUN=false` and a paging service is configured. A service recognises
the alert by the id of the incident, so that a message that arrives twice opens no second
alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from app.agent.models import IncidentState
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.connectors.chat.last_posted import PostedIncident
from app.connectors.chat.links import Links
from app.connectors.chatops import describe
from app.connectors.paging.alert import PagedIncident, PagerAlert, PageStep, next_step, urgency_of
from app.settings.entries import PageWhen


class PagingService(Protocol):
    """The API of one service. Errors as in `Channel`."""

    @property
    def name(self) -> str: ...

    async def send(self, step: PageStep, alert: PagerAlert) -> None:
        """Ask the service for one step; repeating it changes nothing."""
        ...

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


class PagerChannel:
    """`Channel` that pages while an incident needs a person, or from its start."""

    has_buttons = False

    def __init__(
        self, service: PagingService, *, when: PageWhen = PageWhen.PERSON_NEEDED, links: Links | None = None
    ) -> None:
        self._service = service
        self._when = when
        self._links = links or Links()

    @property
    def name(self) -> str:
        return self._service.name

    async def begin(self, bulletin: Bulletin) -> str:
        """Open an alert if the incident needs a person already."""
        return await self._follow(None, bulletin)

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Open, update, acknowledge or end the alert as the incident changed."""
        return await self._follow(PagedIncident.read(reference), bulletin)

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        """Add an announcement to the open alert; without one, the next change of state pages."""
        paged = PagedIncident.read(reference)
        if not reply.loud or not paged.alerting:
            return
        await self._service.send(
            PageStep.UPDATE, self._alert(paged.posted, f"{paged.posted.title}: announcement", reply.lines, ())
        )

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:  # noqa: ARG002 - as every channel
        """Alerts are not searched: a step that is sent again changes nothing."""
        return None

    async def check(self) -> None:
        """Whether the service answers; whether it accepts the key, only an alert shows."""
        await self._service.check()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._service.aclose()

    async def _follow(self, before: PagedIncident | None, bulletin: Bulletin) -> str:
        step, now = next_step(before, bulletin, self._when)
        if step is not None:
            message = describe(bulletin)
            asked = bulletin.asked
            answer = (
                () if asked is None else (f"Answer with: heal approve {asked.id}, or heal deny {asked.id}",)
            )
            approval = None if asked is None else self._links.approval(asked.id)
            links = () if approval is None else ((approval, "Approve or deny"),)
            alert = self._alert(now.posted, message.title, (*answer, *message.lines), links)
            await self._service.send(step, alert)
        return now.written()

    def _alert(
        self, posted: PostedIncident, title: str, details: Sequence[str], links: tuple[tuple[str, str], ...]
    ) -> PagerAlert:
        incident = self._links.incident(posted.id)
        return PagerAlert(
            incident_id=posted.incident_id,
            service=posted.service,
            environment=posted.environment,
            title=title,
            details=tuple(details),
            urgency=urgency_of(IncidentState(posted.state)),
            links=(*links, *(() if incident is None else ((incident, "Open the incident"),))),
        )
