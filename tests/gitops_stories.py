"""A stage for rollbacks through a GitOps controller: the story's agent, the stand-in, a real repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from app.agent.models import IncidentRecord
from app.agent.ports.store import Store
from app.bootstrap import Adapters
from app.connectors.argocd.registration import KIND
from app.connectors.git.connect import connect_repositories
from app.sandbox.objects import Deployment
from tests.contract.argocd_standin import TOKEN, ArgoStandIn
from tests.contract.gitops_repository import GitRepository
from tests.contract.loopback import loopback
from tests.stories import ACTING, NAMESPACE, SERVICE, STEP_SECONDS, Story, settings_for, story


class Died(BaseException):
    """The process ends here, as after kill -9."""


@dataclass
class Fuse:
    """Ends the process before or after one call; without a point it lists the calls."""

    point: str | None = None
    armed: bool = False
    calls: list[str] = field(default_factory=list)

    async def around(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if not self.armed:
            return await call()
        label = f"{name}#{sum(one.rpartition('#')[0] == name for one in self.calls) + 1}"
        self.calls.append(label)
        self._burn(f"{label}:before")
        found = await call()
        self._burn(f"{label}:after")
        return found

    def _burn(self, point: str) -> None:
        if point == self.point:
            self.point = None
            raise Died


class Fused:
    """An object whose coroutines pass the fuse."""

    def __init__(self, inner: Any, fuse: Fuse, name: str, only: tuple[str, ...] = ()) -> None:
        self._inner, self._fuse, self._name, self._only = inner, fuse, name, only

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or (self._only and name not in self._only):
            return found
        fuse, label = self._fuse, f"{self._name}.{name}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await fuse.around(label, lambda: found(*args, **kwargs))

        return call


class FusedStore:
    """The store whose records of incidents and intents pass the fuse."""

    def __init__(self, inner: Store, fuse: Fuse) -> None:
        self._inner = inner
        self.incidents = Fused(inner.incidents, fuse, "incidents", ("save",))
        self.intents = Fused(inner.intents, fuse, "intents", ("add", "begin", "finish"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Controller(Protocol):
    """The stand-in of a GitOps controller."""

    def reconcile(self) -> None:
        """One turn of it."""
        ...


C = TypeVar("C", bound=Controller)


@dataclass
class GitOpsStory(Generic[C]):
    """The story with its application."""

    stage: Story
    standin: C
    repository: GitRepository
    fuse: Fuse

    async def live(self, seconds: float) -> None:
        """As `Story.live`; after the process died a new one takes over."""
        for _ in range(round(seconds / STEP_SECONDS)):
            self.standin.reconcile()
            try:
                await self.stage.live(STEP_SECONDS)
            except Died:
                await self.stage.restart()

    async def live_until(
        self, holds: Callable[[IncidentRecord], bool], seconds: float = 1800
    ) -> IncidentRecord:
        """Live until the newest incident is so."""
        until = self.stage.clock.now() + timedelta(seconds=seconds)
        while self.stage.clock.now() < until:
            await self.live(STEP_SECONDS)
            record = await self.stage.newest()
            if record is not None and holds(record):
                return record
        raise AssertionError(f"not so within {seconds} s: {await self.stage.newest()}")

    async def live_until_ended(self) -> IncidentRecord:
        return await self.live_until(lambda record: record.incident.state.closed)

    def deployment(self) -> Deployment:
        (found,) = self.stage.world.deployments(NAMESPACE, SERVICE)
        return found


@asynccontextmanager
async def gitops_story(
    folder: Path, *, fuse: Fuse | None = None, **settings: Any
) -> AsyncIterator[GitOpsStory[ArgoStandIn]]:
    """A service released by automated sync with self-heal that has served well, and shop:2-crash not yet."""
    fuse = fuse or Fuse()
    repository = GitRepository.create(folder, NAMESPACE, SERVICE)
    holder: list[Story] = []

    def image() -> str | None:
        found = holder[0].world.deployments(NAMESPACE, SERVICE)
        return found[0].template.image if found else None

    def healthy() -> bool:
        found = holder[0].world.deployments(NAMESPACE, SERVICE)
        return bool(found) and found[0].status.available >= found[0].replicas

    standin = ArgoStandIn(
        repository=repository,
        live_image=image,
        deploy=lambda wanted: holder[0].world.release(NAMESPACE, SERVICE, wanted),
        healthy=healthy,
        now=lambda: holder[0].clock.now(),
    )
    async with loopback(standin.rule) as server:
        known = {
            "argocd_url": server.url,
            "argocd_token": TOKEN,
            "argocd_timeout_seconds": 60,
            "git_revert": "branch",
            "git_repositories": [str(repository.bare)],
            "git_timeout_seconds": 60,
            **ACTING,
            **settings,
        }
        connected = KIND.connect(
            settings_for(folder, **known), connect_repositories(settings_for(folder, **known))
        )
        ports = connected.ports
        watched = replace(
            ports,
            writer=None if ports.writer is None else Fused(ports.writer, fuse, "argocd"),
            repository=None if ports.repository is None else Fused(ports.repository, fuse, "git"),
        )

        def world(adapters: Adapters) -> Adapters:
            return replace(adapters, gitops=watched)

        async with story(
            folder, connected=world, shaken_store=lambda store: FusedStore(store, fuse), **known
        ) as stage:
            holder.append(stage)
            stage.deploy(
                annotations={"argocd.argoproj.io/tracking-id": f"shop:apps/Deployment:{NAMESPACE}/{SERVICE}"}
            )
            repository.release("shop:1")
            told = GitOpsStory(stage=stage, standin=standin, repository=repository, fuse=fuse)
            await told.live(100)
            fuse.armed = True
            try:
                yield told
            finally:
                await connected.close()
