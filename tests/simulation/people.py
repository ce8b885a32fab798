"""The people of a simulation: they throw the kill switch, and answer what they are asked, or do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from app.agent.identity.people import Person
from app.agent.ids import ApprovalId
from app.agent.models import KillSwitch
from app.agent.responders.request import ResponderAct
from app.api.problems import Problem
from app.api.routes.responders import respond
from app.errors import AgentError, TransientError
from tests.simulation.faults import Kind
from tests.simulation.host import Ground, Host
from tests.simulation.scheduler import moment
from tests.simulation.tape import UndoAnswered, UndoAsked

_TRIES = 10


class OnCall:
    """The person on call, in front of some process of the agent."""

    def __init__(self, ground: Ground, dice: Random) -> None:
        self._ground = ground
        self._dice = dice
        self._at_work: set[asyncio.Task[None]] = set()

    def brake(self, engaged: bool) -> None:
        """Throw the kill switch, or release it."""
        if engaged:
            self._ground.tape.fault(Kind.BRAKED, "people")
        brake = KillSwitch(engaged=engaged, by="on-call", reason="drill", at=moment(self._ground.loop.time()))
        self._begin(lambda host: host.store.guardrails.set_kill_switch(brake))

    def asked(self, approval: str) -> None:
        """A person answers after a while, perhaps twice, or does not answer."""
        if self._dice.random() < 0.15:
            return
        for _ in range(self._dice.choice((1, 1, 2))):
            approve = self._dice.random() < 0.75
            self._ground.loop.call_later(self._dice.uniform(1, 50), self._answer, approval, approve)

    def _answer(self, approval: str, approve: bool) -> None:
        self._begin(
            lambda host: host.store.approvals.answer(
                ApprovalId(approval),
                approve=approve,
                by=Person(name="on-call"),
                comment="",
                at=host.clock.now(),
            )
        )

    def undo(self, incident: str, by: str) -> None:
        """A person asks, as `POST /v1/incidents/{id}/undo` does, to undo the agent's last change."""
        tape = self._ground.tape
        tape.write(UndoAsked(at=tape.now(), who="people", incident=incident, by=by))
        self._begin(lambda host: self._asked_at(host, incident, by))

    async def _asked_at(self, host: Host, incident: str, by: str) -> None:
        tape, refused = self._ground.tape, None
        try:
            await respond(host.agent, incident, ResponderAct.UNDO, Person(name=""), by, "it did harm")
        except Problem as problem:
            refused = problem.detail
        tape.write(UndoAnswered(at=tape.now(), who="people", incident=incident, by=by, refused=refused))

    def write_note(self, incident: str) -> None:
        """A person writes a note to an incident, and asks for nothing."""
        self._begin(
            lambda host: respond(
                host.agent, incident, ResponderAct.NOTE, Person(name=""), "the third on call", "looked at it"
            )
        )

    def _begin(self, what: Callable[[Host], Coroutine[Any, Any, Any]]) -> None:
        task = self._ground.loop.create_task(self._insist(what))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _insist(self, what: Callable[[Host], Coroutine[Any, Any, Any]]) -> None:
        """Ask one process after another until one has done it, or has said why not."""
        for _ in range(_TRIES):
            living = self._ground.living
            if living:
                host = self._dice.choice(living)
                call = host.spawn(what(host))
                await asyncio.wait({call}, timeout=10)
                if call.done() and not call.cancelled() and _settled(call.exception()):
                    return
            await asyncio.sleep(1.0)


def _settled(error: BaseException | None) -> bool:
    """Done, or refused for good: a conflict with an earlier answer is an answer too."""
    if error is None:
        return True
    return isinstance(error, AgentError) and type(error) is not TransientError
