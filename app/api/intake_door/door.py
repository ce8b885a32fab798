"""The ASGI layer in front of the framework and of its guards."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.admission import AdmittedRequest, InProgress, Interruptible, Phase, stopping
from app.api.bodies import BODY_TIMEOUT_SECONDS, too_slow
from app.api.dependencies import ApiDependencies
from app.api.intake_door.reading import plain_headers
from app.api.intake_door.taking import HANDLERS, Body, Handler, Unusual, is_plain
from app.api.problems import Problem, problem_of
from app.api.security.guards import SecurityHeaders, security_headers
from app.bounds.deadline import deadline
from app.errors import AgentError

DOOR = "intake door"
"""The name of the door in the state that the lifespan passes to the server."""


@dataclass(frozen=True, slots=True)
class DoorFailure:
    """The door failed at a request; the ordinary route answers and logs the defect."""

    error: Exception


Judged: TypeAlias = bytes | Problem | DoorFailure | None
"""The body of the answer 202, a refusal, or the part for the ordinary route; None: the whole request."""


class IntakeDoor:
    """Answers plain deliveries, and passes everything else on unchanged.

    It stands in front of all layers and keeps their guarantees: a request counts as in progress, must come
    from this machine if no identity is required, is counted and timed, and gets the same answer headers.
    """

    def __init__(self, app: ASGIApp, application: Starlette, *, progress: InProgress, sandbox: bool) -> None:
        """`app` answers what this does not; `application` has a container while it runs."""
        self._app = app
        self.application = application
        self._progress = progress
        self._sandbox = sandbox
        self.headers = [(b"content-type", b"application/json"), *security_headers(sandbox=sandbox)]
        """The headers of every answer 202, except its length."""

    @property
    def container(self) -> ApiDependencies | None:
        """The agent, while another request is admitted."""
        return getattr(self.application.state, "container", None) if self._progress.is_open else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        handler = HANDLERS.get(path) if scope["method"] == "POST" else None
        container = None if handler is None else self.container
        if handler is None or container is None or not _is_plain(scope, container):
            await self._app(scope, receive, send)
            return
        received, admitted = _Received(receive), AdmittedRequest()

        async def body() -> bytes:
            return await _body(received, admitted)

        judged = await self.judge(handler, Request(scope), container, body, admitted)
        if isinstance(judged, bytes):
            headers = [(b"content-length", str(len(judged)).encode()), *self.headers]
            await send({"type": "http.response.start", "status": 202, "headers": headers})
            await send({"type": "http.response.body", "body": judged})
        else:
            await self.pass_on(judged, scope, received, send)

    def admit(self, task: asyncio.Task[None], admitted: AdmittedRequest) -> None:
        """Count the request of a task that will have it judged: those read after it find it counted."""
        self._progress.enter(task, admitted)

    async def judge(
        self,
        handler: Handler,
        request: Request,
        container: ApiDependencies,
        body: Body,
        admitted: AdmittedRequest,
    ) -> Judged:
        """The answer of the handler, in the task of the request, which counts as in progress."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by a task
        began = time.perf_counter()
        judged: Judged = None
        self._progress.running[task] = admitted
        try:
            judged = await handler(request, container, body)
        except asyncio.CancelledError:
            if not admitted.stopped:
                raise
            task.uncancel()
            judged = stopping()
        except Unusual:
            pass
        except Exception as error:  # noqa: BLE001 - boundary: the ordinary route answers and logs a defect
            judged = refused_with(error)
        finally:
            del self._progress.running[task]
        note(container, request.scope["path"], judged, began)
        return judged

    def enter(self, request: Interruptible, admitted: AdmittedRequest) -> None:
        """Count a request that has no task."""
        self._progress.running[request] = admitted

    def leave(self, request: Interruptible) -> None:
        """It is answered."""
        del self._progress.running[request]

    async def pass_on(
        self, judged: Problem | DoorFailure | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a refusal; leave everything else to the ordinary route."""
        received = receive if isinstance(receive, _Received) else _Received(receive)
        if isinstance(judged, Problem):
            refusal = SecurityHeaders(judged.response(scope["path"]), sandbox=self._sandbox)
            await refusal(scope, received, send)
            return
        if isinstance(judged, DoorFailure):
            received.fails_with(judged.error)
        await self._app(scope, received.again, send)


def refused_with(error: Exception) -> Problem | DoorFailure:
    """The refusal that an error of the agent is; any other one is a defect."""
    if isinstance(error, Problem):
        return error
    return problem_of(error) if isinstance(error, AgentError) else DoorFailure(error)


def note(container: ApiDependencies, path: str, judged: Judged, began: float) -> None:
    """Count and time a request that the door answers; `began` is of `time.perf_counter`."""
    if isinstance(judged, bytes | Problem):
        status = judged.status if isinstance(judged, Problem) else 202
        container.measures.note_request("POST", path, status, time.perf_counter() - began)


class _Received:
    """The messages of a request, kept until it is clear who answers it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._error: Exception | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        self._kept.append(message)
        return message

    async def again(self) -> Message:
        """The same messages again, then those that follow."""
        if self._error is not None:
            raise self._error
        return self._kept.pop(0) if self._kept else await self._receive()

    def fails_with(self, error: Exception) -> None:
        """Let the next reader of the messages fail with it."""
        self._error = error


def _is_plain(scope: Scope, container: ApiDependencies) -> bool:
    headers = plain_headers(scope["headers"])
    if headers is None or scope["query_string"] or scope.get("root_path"):
        return False
    server, client = scope.get("server"), scope.get("client")
    return is_plain(
        headers,
        scope["path"],
        container,
        arrived_on=server and server[0],
        comes_from=client and client[0],
    )


async def _body(receive: Receive, admitted: AdmittedRequest) -> bytes:
    """The whole body, as long as it was declared to be."""
    parts = []
    admitted.phase = Phase.READING
    async with deadline(BODY_TIMEOUT_SECONDS, too_slow):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Unusual
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                admitted.phase = Phase.WORKING
                return parts[0] if len(parts) == 1 else b"".join(parts)
