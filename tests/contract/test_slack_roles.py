"""Which process listens to Slack, and that an answer that one hears wakes the workers of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.agent.models import ApprovalState
from app.bootstrap import Adapters, Container, assemble
from app.clock import SystemClock
from app.settings.entries import Role
from app.store import open_shared
from app.workers import LocalRunner, attended
from tests.api import stories
from tests.contract.eventually import DEADLINE_SECONDS, eventually
from tests.contract.slack_stage import ANN, dressed, slack_settings
from tests.contract.slack_standin import Slack, slack_standin

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


@asynccontextmanager
async def process(folder: Path, slack: Slack, database_url: str, role: Role) -> AsyncIterator[Container]:
    """A wired agent of that role with its work started."""
    store, fleet = await open_shared(database_url)
    settings = slack_settings(folder, slack, database_url=database_url, role=role)
    container = assemble(settings, clock=SystemClock(), store=store, world=Adapters(), fleet=fleet)
    try:
        async with attended(container, LocalRunner()):
            yield container
    finally:
        await container.close()


@pytest.mark.parametrize("role", [Role.ALL, Role.API])
async def test_the_process_that_talks_to_people_keeps_the_socket(
    tmp_path: Path, postgres_url: str, role: Role
) -> None:
    """Connected while the process runs, and gone with it."""
    async with slack_standin() as slack:
        async with process(tmp_path, slack, postgres_url, role):
            await slack.until_linked()

        async def gone() -> bool:
            return not slack.sockets

        await eventually(gone)
        assert not {task for task in asyncio.all_tasks() if task.get_name() == "socket of slack"}


@pytest.mark.parametrize("role", [Role.WORKER, Role.WATCH])
async def test_the_others_do_not_listen(tmp_path: Path, postgres_url: str, role: Role) -> None:
    async with slack_standin() as slack, process(tmp_path, slack, postgres_url, role) as container:
        assert not container.chats


async def test_an_answer_at_the_api_wakes_the_worker(tmp_path: Path, postgres_url: str) -> None:
    """It has no driver of its own; the store rings in the transaction of the answer."""
    async with (
        slack_standin() as slack,
        process(tmp_path, slack, postgres_url, Role.API) as api,
        dressed(slack, api) as people,
    ):
        approval_id = await stories.awaiting(api)
        value = await people.button(approval_id)
        store, fleet = await open_shared(postgres_url)
        await fleet.enter("worker")
        try:
            rung = asyncio.create_task(fleet.woken())
            done, _ = await asyncio.wait({rung}, timeout=0.2)
            if done:  # what was rung before may still be heard
                rung = asyncio.create_task(fleet.woken())
            await people.press(ANN, value)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await rung
            assert (await people.approval(approval_id)).state is ApprovalState.APPROVED
        finally:
            await fleet.leave()
            await store.close()
