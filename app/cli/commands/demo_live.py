"""Plays a bad release on a real cluster and lets the whole agent heal it.

Called by `heal demo` when a test bed runs, or when `--cluster` names a service
and a bad image. Builds the agent as `heal run` does, engine included. What it
released and was not rolled back, it undoes at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2
from dotenv import dotenv_values
from pydantic import ValidationError

from app.agent.ids import ServiceKey
from app.agent.models import IncidentRecord
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.workload import RevisionHealth, WorkloadView
from app.bootstrap import Container
from app.bounds.deadline import deadline
from app.cli.commands.agent_client import default_url
from app.cli.commands.errors import CommandFailed
from app.cli.commands.listener import SeenEvents, StoryListener
from app.config import Settings
from app.connectors.kubernetes.pipeline import pipeline
from app.connectors.registry import METRIC_SOURCES
from app.errors import PermanentError, TransientError
from app.workers import running

TESTBED_ENV = Path(".testbed/env")
_STEP_SECONDS = 0.5
_LEARN_SECONDS = 120.0
_STORY_SECONDS = 420.0
_SETTLE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStory:
    """What is released where, and with whose rights."""

    settings: Settings
    key: ServiceKey
    image: str
    """The bad one."""
    kubeconfig: Path
    """The pipeline's, which may change the Deployment; the agent uses its own."""


def testbed_story(settings: Settings, env_file: Path, *, dry_run: bool) -> LiveStory:
    """The story on a running test bed: its sample service gets a release that fails half of the requests."""
    values = {key: value for key, value in dotenv_values(env_file).items() if value is not None}
    try:
        kubeconfig = Path(values["TESTBED_ADMIN_KUBECONFIG"])
        ours = {key.lower(): value for key, value in values.items() if not key.startswith("TESTBED_")}
        return LiveStory(
            settings=story_settings(settings, ours, dry_run=dry_run),
            key=ServiceKey(environment="prod", service="payments-api"),
            image="registry.example/payments-api:1.15.0-errors",
            kubeconfig=kubeconfig,
        )
    except (KeyError, ValidationError) as error:
        raise CommandFailed(
            f"{env_file} is not of this version's test bed; restart it with `make testbed`"
        ) from error


def cluster_story(settings: Settings, service: str, image: str, *, dry_run: bool) -> LiveStory:
    """The story on a cluster of the user's own, with a service and a bad image of theirs."""
    environment, _, name = service.partition("/")
    if not environment or not name:
        raise CommandFailed(f"--service {service!r}: write ENVIRONMENT/SERVICE, such as prod/payments-api")
    if settings.kubeconfig is None or not any(kind.configured(settings) for kind in METRIC_SOURCES):
        sources = " or ".join(kind.settings[0] for kind in METRIC_SOURCES)
        raise CommandFailed(f"--cluster needs KUBECONFIG and {sources}")
    return LiveStory(
        settings=story_settings(settings, {}, dry_run=dry_run),
        key=ServiceKey(environment=environment, service=name),
        image=image,
        kubeconfig=settings.kubeconfig,
    )


def story_settings(settings: Settings, values: Mapping[str, str], *, dry_run: bool) -> Settings:
    """The user's settings over the bed's, with shorter times: a demo is watched, production is not."""
    bed = Settings.model_validate({**settings.model_dump(exclude_unset=True), **values})
    return bed.model_copy(
        update={
            "config_file": None,  # a change of it would undo what is set here
            "dry_run": dry_run,
            "allow_high_risk_actions": True,
            "breach_for_seconds": 8.0,
            "reopen_after_seconds": 0.0,
            "incident_settle_seconds": 5.0,
            "trust_revision_after_seconds": 15.0,
            "trust_min_requests": 0,  # the bed may have no load of its own
            "verify_soak_seconds": 15.0,
            "verify_timeout_seconds": 20.0 if dry_run else 180.0,
        }
    )


async def play_live(story: LiveStory, story_listener: StoryListener) -> IncidentRecord:
    """Release, follow the incident, and return it as it ended."""
    await _must_be_alone(story.settings)
    async with running(story.settings) as container:
        before = await _healthy(container, story.key)
        now = container.clock.now()
        story_listener.happened(now, f"{story.key}: healthy. The agent is getting to know what serves well.")
        await _learn(container, story.key, before)
        async with _released(story, before) as release:
            story_listener.happened(container.clock.now(), f"The pipeline releases {story.image}.")
            record = await _watch(container, story.key, story_listener)
            release.healed = await _serves(container, story.key, before)
        if not release.healed:
            await _settled(container, story.key)
        return record


async def _must_be_alone(settings: Settings) -> None:
    """Another agent on this database and cluster would act beside the demo."""
    url = default_url(settings)
    try:
        async with httpx2.AsyncClient(timeout=2.0, trust_env=False) as client:
            await client.get(f"{url}/healthz")
    except httpx2.HTTPError:
        return
    raise CommandFailed(f"another agent runs at {url} and would interfere with the demo: stop it first")


async def _healthy(container: Container, key: ServiceKey) -> WorkloadView:
    reader = container.world.reader
    view = await reader.workload(key) if reader is not None else None
    if view is None:
        raise CommandFailed(f"no workload in the cluster maps to {key}")
    if not view.rollout_complete:
        raise CommandFailed(f"{view.target.ref} is not healthy before the demo: its rollout is not complete")
    return view


async def _learn(container: Container, key: ServiceKey, view: WorkloadView) -> None:
    """Wait until the history records the running version as healthy: only then is it a rollback target."""
    not_learned = CommandFailed(
        f"{key} was not observed as healthy within {_LEARN_SECONDS:.0f} s; run `heal doctor`"
    )
    async with deadline(_LEARN_SECONDS, lambda: not_learned):
        while True:
            for known in await container.store.history.revisions(key):
                same = known.template_hash == view.revisions[0].template_hash
                if same and known.health is RevisionHealth.SERVED_WELL:
                    return
            await asyncio.sleep(_STEP_SECONDS)


async def _watch(container: Container, key: ServiceKey, story_listener: StoryListener) -> IncidentRecord:
    """Print what happens until the incident of this release has ended."""
    begun = container.clock.now()
    where = IncidentFilter(
        service=key.service, environment=key.environment, since=begun - timedelta(seconds=1)
    )
    seen = SeenEvents(story_listener, begun)
    while (container.clock.now() - begun).total_seconds() < _STORY_SECONDS:
        await seen.levels(container, key)
        page = await container.store.incidents.find(where, limit=1, cursor=None)
        if page.items:
            record = await container.store.incidents.get(page.items[0].incident.id)
            if record is not None:
                seen.entries([record])
                if record.incident.state.closed:
                    return record
        await asyncio.sleep(_STEP_SECONDS)
    raise CommandFailed(f"no incident of {key} has ended within {_STORY_SECONDS:.0f} s")


async def _serves(container: Container, key: ServiceKey, before: WorkloadView) -> bool:
    """Whether what ran before the story runs again."""
    view = await container.world.reader.workload(key) if container.world.reader is not None else None
    return view is not None and view.revisions[0].template_hash == before.revisions[0].template_hash


async def _settled(container: Container, key: ServiceKey) -> None:
    """Until the good image runs again and no incident is open: the next demo starts from a healthy service.

    The bad release still ran when its incident ended, and may have opened another one.
    """
    begun = container.clock.now()
    where = IncidentFilter(service=key.service, environment=key.environment)
    while (container.clock.now() - begun).total_seconds() < _SETTLE_SECONDS:
        view = await container.world.reader.workload(key) if container.world.reader is not None else None
        newest = (await container.store.incidents.find(where, limit=1, cursor=None)).items
        still_open = any(not item.incident.state.closed for item in newest)
        if view is not None and view.rollout_complete and not still_open:
            return
        await asyncio.sleep(_STEP_SECONDS)
    raise CommandFailed(
        f"the good image was restored, but {key} has not rolled out in {_SETTLE_SECONDS:.0f} s"
    )


@dataclass(slots=True, kw_only=True)
class _DemoRelease:
    healed: bool = False


@asynccontextmanager
async def _released(story: LiveStory, before: WorkloadView) -> AsyncIterator[_DemoRelease]:
    """Release the bad image; afterwards the agent or the demo restores the good one."""
    ref, good = before.target.ref, before.revisions[0].images[0]
    try:
        async with pipeline(story.kubeconfig) as set_image:
            await set_image(ref, story.image)
            release = _DemoRelease()
            try:
                yield release
            finally:
                if not release.healed:
                    await set_image(ref, good)
    except (PermanentError, TransientError) as error:
        raise CommandFailed(str(error)) from error
