"""Dependencies of the routers: the container of `app.main`, and the checks for every request.

`ApiDependencies` declares the part that HTTP uses, so that importing the routers
imports no adapter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import Request

from app.agent.freshness.watchdog import WatchdogTerms
from app.agent.intake import Intake
from app.agent.loop import Loop
from app.agent.ports.cluster import PodOwners
from app.agent.ports.people import IdentityProvider
from app.agent.ports.store import Store
from app.agent.ports.streams import StreamProgress
from app.agent.slo import SloThresholds
from app.api.problems import FieldError, Problem, invalid
from app.clock import Clock
from app.config import Settings
from app.connectors.kinds import ChatInbound
from app.measures.process import Measures
from app.vitals import Vitals


class ReadStream(Protocol):
    """The part of an open stream that HTTP reports."""

    @property
    def source(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def progress(self) -> StreamProgress: ...


class ReadPeer(Protocol):
    """The part of a peer's circuit breaker that HTTP reports."""

    @property
    def name(self) -> str: ...
    @property
    def answered_calls(self) -> int: ...
    @property
    def failed_calls(self) -> int: ...
    @property
    def rejected_calls(self) -> int: ...
    @property
    def reachable(self) -> bool: ...


class ApiDependencies(Protocol):
    """The part of `app.bootstrap.Container` that HTTP needs."""

    @property
    def settings(self) -> Settings: ...
    @property
    def settings_in_force(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def loop(self) -> Loop: ...
    @property
    def slo(self) -> SloThresholds: ...
    @property
    def streams(self) -> Sequence[ReadStream]: ...
    @property
    def sign_in(self) -> IdentityProvider | None: ...
    @property
    def checks(self) -> Sequence[tuple[str, Callable[[], Awaitable[str | None]]]]: ...
    @property
    def chats(self) -> Mapping[str, ChatInbound]: ...
    @property
    def vitals(self) -> Vitals: ...
    @property
    def watchdog(self) -> WatchdogTerms | None: ...
    @property
    def measures(self) -> Measures: ...
    def informer_ages(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def peers(self) -> Sequence[ReadPeer]: ...
    @property
    def pod_owners(self) -> PodOwners | None: ...


def _container(request: Request) -> ApiDependencies:
    container: ApiDependencies | None = getattr(request.app.state, "container", None)
    if container is None:
        raise Problem(
            status=503,
            kind="starting",
            title="The agent is starting or stopping",
            detail="Retry the same request in a moment.",
            headers={"Retry-After": "1"},
        )
    return container


def each_once(request: Request, *, but: Collection[str] = ()) -> None:
    """Reject a repeated query parameter: it is ambiguous which value applies; `but` may be repeated."""
    names = [name for name, _ in request.query_params.multi_items()]
    twice = sorted({name for name in names if names.count(name) > 1 and name not in but})
    if twice:
        raise invalid(
            [
                FieldError(
                    field=name,
                    value=request.query_params.getlist(name),
                    message="is given more than once",
                    fix="send it once",
                )
                for name in twice
            ]
        )


def _each_parameter_once(request: Request) -> None:
    each_once(request)


def _only_state_repeated(request: Request) -> None:
    each_once(request, but=("state",))


def _no_parameter(request: Request) -> None:
    unknown = sorted(set(request.query_params))
    if unknown:
        raise invalid(
            [
                FieldError(
                    field=name,
                    value=request.query_params[name],
                    message="is not known",
                    fix="remove it: this address takes no parameter",
                )
                for name in unknown
            ]
        )


ContainerDep = Annotated[ApiDependencies, Depends(_container)]
EachParameterOnce = Depends(_each_parameter_once)
NoParameter = Depends(_no_parameter)
OnlyStateRepeated = Depends(_only_state_repeated)
