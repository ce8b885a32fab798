"""A stage for rollbacks through Flux: the story's agent, the stand-in, a real repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.bootstrap import Adapters
from app.connectors.flux.registration import KIND
from app.connectors.git.connect import connect_repositories
from tests.contract.flux_standin import SPACE, FluxStandIn, kubeconfig_of
from tests.contract.gitops_repository import GitRepository
from tests.contract.loopback import loopback
from tests.gitops_stories import Fuse, Fused, FusedStore, GitOpsStory
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, settings_for, story

LABELS = {"kustomize.toolkit.fluxcd.io/name": SERVICE, "kustomize.toolkit.fluxcd.io/namespace": SPACE}


@asynccontextmanager
async def flux_story(
    folder: Path, *, fuse: Fuse | None = None, connected: bool = True, **settings: Any
) -> AsyncIterator[GitOpsStory[FluxStandIn]]:
    """A service released by a Kustomization that has served well, and shop:2-crash not yet.

    Without `connected` the agent knows nothing of Flux.
    """
    fuse = fuse or Fuse()
    repository = GitRepository.create(folder, NAMESPACE, SERVICE)
    holder: list[Story] = []

    def image() -> str | None:
        found = holder[0].world.deployments(NAMESPACE, SERVICE)
        return found[0].template.image if found else None

    standin = FluxStandIn(
        repository=repository,
        live_image=image,
        deploy=lambda wanted: holder[0].world.release(NAMESPACE, SERVICE, wanted),
        now=lambda: holder[0].clock.now(),
    )
    async with loopback(standin.rule) as server:
        known = {
            "git_revert": "branch",
            "git_repositories": [str(repository.bare)],
            "git_timeout_seconds": 60,
            **ACTING,
            **settings,
        }
        own = {
            "flux_enabled": True,
            "kubeconfig": kubeconfig_of(server.url, folder),
            "kube_timeout_seconds": 60,
        }
        asked = settings_for(folder, **known, **own)
        made = KIND.connect(asked, connect_repositories(asked))
        ports = made.ports
        watched = replace(
            ports,
            writer=None if ports.writer is None else Fused(ports.writer, fuse, "flux"),
            repository=None if ports.repository is None else Fused(ports.repository, fuse, "git"),
        )

        def world(adapters: Adapters) -> Adapters:
            return replace(adapters, gitops=watched) if connected else adapters

        async with story(
            folder, connected=world, shaken_store=lambda store: FusedStore(store, fuse), **known
        ) as stage:
            holder.append(stage)
            stage.deploy(annotations=LABELS)
            repository.release("shop:1")
            told = GitOpsStory(stage=stage, standin=standin, repository=repository, fuse=fuse)
            await told.live(100)
            fuse.armed = True
            try:
                yield told
            finally:
                await made.close()
