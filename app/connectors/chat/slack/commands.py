"""Handles Slack buttons and commands, with the same decisions as every other interface.

Called by `slack_inbound`, which knows how Slack brings it. A person's identity
comes from SLACK_USERS alone. A result is durable before the reply reports it; if
it could not be recorded in time, the reply says that the outcome is unknown. A
button counts once by its nonce, a command by its trigger (promise 1).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.agent.approvals.answer import answer
from app.agent.identity.people import (
    Door,
    Person,
    Scope,
    scopes_of,
)
from app.agent.models import Approval, ApprovalState, KillSwitch
from app.agent.ports.store import Store
from app.agent.ports.store.approvals import ApprovalRecord
from app.bounds.deadline import deadline
from app.clock import Clock
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.chat.slack.blocks import read_value
from app.connectors.text import shorten
from app.errors import AgentError, Conflict, PermanentError, TransientError

log = logging.getLogger(__name__)

RECORD_SECONDS = 2.0
"""Slack's limit is 3 s."""

_MOST_SHOWN = 10
_MAX_REASON = 500

HELP = (
    "/heal brake: show the kill switch\n"
    "/heal brake on REASON: block all new actions; running undos and verifications continue\n"
    "/heal brake off [REASON]: allow actions again\n"
    "/heal approvals: list pending approvals\n"
    "/heal help: show this help"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """A pressed button."""

    user: str
    approve: bool
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A typed slash command."""

    user: str
    text: str
    trigger: str
    """Slack's own name for this very command; the same whenever it is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateReply:
    """A reply that only this person sees, and whether the recorded outcome is certain."""

    text: str
    """Plain; several lines."""
    links: tuple[tuple[str, str], ...] = ()
    """Words and addresses of where they can go on."""
    settled: bool = True
    """False when the outcome is unknown: Slack gets no acknowledgement."""


class SlackCommands:
    """Answers for people in Slack."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._links = Links.from_settings(settings)
        self._store = store
        self._clock = clock

    async def click(self, click: Click) -> PrivateReply:
        """Record an answer, once, and say what came of it."""
        person = self._person(click.user)
        if person is None or not person.may(Scope.APPROVE):
            return self._refused(click.user, person, Scope.APPROVE)
        carried = read_value(click.value)
        if carried is None:
            return PrivateReply(text="Nothing changed: this button has an invalid value.")
        approval_id, nonce = carried

        async def say() -> PrivateReply:
            recorded = await answer(
                self._store.approvals,
                approval_id,
                approve=click.approve,
                by=person,
                comment="",
                at=self._clock.now(),
                nonce=nonce,
            )
            return PrivateReply(text=_recorded(recorded, click.approve))

        return await _in_time(say, "your answer", "Check the incident and press again; a repeat counts once.")

    async def command(self, command: Command) -> PrivateReply:
        """Carry out a command, once, and say what came of it."""
        words = _as_typed(command.text).split()
        match [word.lower() for word in words[:2]]:
            case [] | ["help", *_]:
                return PrivateReply(text=HELP)
            case ["approvals"]:
                return await self._reading(command, self._waiting)
            case ["brake"]:
                return await self._reading(command, self._status)
            case ["brake", "on" | "off" as way]:
                return await self._set_brake(command, way == "on", " ".join(words[2:]))
        return PrivateReply(text=f"Unknown command; nothing changed.\n{HELP}")

    async def _reading(self, command: Command, read: Callable[[], Awaitable[PrivateReply]]) -> PrivateReply:
        person = self._person(command.user)
        if person is None or not person.may(Scope.READ):
            return self._refused(command.user, person, Scope.READ)
        return await _in_time(read, None, "Try again in a moment.")

    async def _set_brake(self, command: Command, engage: bool, reason: str) -> PrivateReply:
        person = self._person(command.user)
        if person is None or not person.may(Scope.OPERATE):
            return self._refused(command.user, person, Scope.OPERATE)
        if engage and not reason:
            return PrivateReply(
                text="Nothing changed: a reason is required, as in /heal brake on database migration"
            )
        if not command.trigger:
            return PrivateReply(
                text="Nothing changed: Slack sent no trigger id for this command. Type it again."
            )
        brake = KillSwitch(
            engaged=engage, by=person.name, reason=shorten(reason, _MAX_REASON), at=self._clock.now()
        )

        async def set_it() -> PrivateReply:
            await self._store.guardrails.set_kill_switch(brake, person=person, nonce=command.trigger)
            way = "engaged" if engage else "released"
            log.warning("kill switch %s by %s in Slack: %s", way, brake.by, brake.reason)
            after = (
                "New actions are blocked; running undos and verifications continue."
                if engage
                else "Actions are allowed again."
            )
            return PrivateReply(text=f"The kill switch is {way}. {after}")

        return await _in_time(
            set_it, "the kill switch", "Check it with /heal brake, or type the command again."
        )

    async def _status(self) -> PrivateReply:
        brake = await self._store.guardrails.kill_switch()
        if brake is None:
            return PrivateReply(text="The kill switch is off and has never been used.")
        way = "engaged: new actions are blocked" if brake.engaged else "off"
        why = f" ({brake.reason})" if brake.reason else ""
        at = f"{brake.at:%Y-%m-%d %H:%M:%S} UTC"
        return PrivateReply(text=f"The kill switch is {way}. Set by {brake.by} at {at}{why}.")

    async def _waiting(self) -> PrivateReply:
        page = await self._store.approvals.find(ApprovalState.PENDING, limit=_MOST_SHOWN, cursor=None)
        if not page.items:
            return PrivateReply(text="No pending approvals.")
        lines = [_request(one) for one in page.items]
        if page.next_cursor is not None:
            lines.append("More are pending; GET /approvals lists all of them.")
        pages = [(str(one.incident.key), self._links.approval(one.approval.id)) for one in page.items]
        links = tuple((words, url) for words, url in pages if url is not None)
        return PrivateReply(text="\n".join(lines), links=links)

    def _person(self, user: str) -> Person | None:
        """Who a Slack user is, by what the configuration says and nothing else."""
        known = self._settings.slack_users.get(user)
        if known is None:
            return None
        return Person(
            name=known.name,
            roles=frozenset(known.roles),
            door=Door.SLACK,
            verified=True,
            scopes=scopes_of(known.roles, self._settings.role_scopes),
        )

    def _refused(self, user: str, person: Person | None, scope: Scope) -> PrivateReply:
        if person is None:
            return PrivateReply(
                text=f"Nothing changed: your Slack user is not listed. Ask the operator to add {user} to "
                "SLACK_USERS."
            )
        roles = sorted(role for role, scopes in self._settings.role_scopes.items() if scope in scopes)
        have = ", ".join(sorted(person.roles)) or "no role"
        return PrivateReply(
            text=f"Nothing changed: {person.name} has {have}. This needs the scope {scope}, granted by "
            f"the roles: {', '.join(roles) or 'none'}. See ROLE_SCOPES and SLACK_USERS."
        )


def _timed_out() -> TransientError:
    return TransientError(f"the database timed out after {RECORD_SECONDS:g} s")


async def _in_time(work: Callable[[], Awaitable[PrivateReply]], what: str | None, fix: str) -> PrivateReply:
    """The result of the work; after a failure or timeout, a reply that the outcome is unknown.

    `what` is being recorded, None where something is only read.
    """
    try:
        async with deadline(RECORD_SECONDS, _timed_out):
            return await work()
    except (Conflict, PermanentError) as error:
        return PrivateReply(text=f"Nothing changed: {error}.")
    except AgentError as error:  # a commit whose answer was lost is one of these, too
        failure = str(error)
    if what is None:
        return PrivateReply(text=f"Read failed: {failure}. {fix}", settled=False)
    return PrivateReply(text=f"Unknown whether {what} was recorded: {failure}. {fix}", settled=False)


def _request(one: ApprovalRecord) -> str:
    asked, until = one.approval, f"{one.approval.expires_at:%Y-%m-%d %H:%M} UTC"
    return f"{one.incident.key}: {asked.action.words} until {until}, {asked.id}"


def _recorded(approval: Approval, approve: bool) -> str:
    """The effect of an answer; it may be a repeat of an earlier one."""
    mine = f"Your {'yes' if approve else 'no'} to {approval.action.words} is recorded"
    match approval.state:
        case ApprovalState.PENDING:
            return f"{mine}: {len(approval.answers)} of {approval.terms.people} approvals received."
        case ApprovalState.APPROVED:
            return f"{mine}. All guardrails are checked again before the agent acts."
        case ApprovalState.DENIED:
            return f"{mine}. The action will not run."
        case ApprovalState.USED:
            return f"{mine} and used: the agent has started the action."
        case ApprovalState.VOID | ApprovalState.EXPIRED:
            return f"{mine} but has no effect: the request is {approval.state}."


def _as_typed(text: str) -> str:
    """Slack sends three characters of what people type as entities."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
