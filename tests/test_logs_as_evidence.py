"""The logs of failing containers in the loop: patterns in timeline and handover, never a line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.agent.models import IncidentState
from app.agent.workload import LogTail, ObjectRef
from app.bootstrap import Adapters
from app.errors import AgentError, Forbidden, TransientError
from tests.stories import NAMESPACE, SERVICE, messages, story

LINES = (
    "2026-02-20T17:00:01Z INFO shop starts for Jane-Doe",
    "2026-02-20T17:00:02Z ERROR password=hunter-two-of-two refused by db-7.internal",
    "2026-02-20T17:00:03Z ERROR password=hunter-two-of-two refused by db-9.internal",
)
PATTERN = "refused by <*> (2 lines)"


@dataclass
class Lines:
    """`ContainerLogs` that answer the same for every container, or fail."""

    error: AgentError | None = None
    left: bool = True
    """Something is left of a container that ended."""
    asked: list[tuple[str, str, str, bool]] = field(default_factory=list)

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        self.asked.append((pod.namespace, pod.name, container, previous))
        if self.error is not None:
            raise self.error
        return LogTail(lines=LINES, previous=previous and self.left)


def _files(directory: Path) -> bytes:
    """Everything that the store wrote."""
    return b"".join(path.read_bytes() for path in directory.iterdir() if path.is_file())


@pytest.mark.parametrize("error", [None, Forbidden("forbidden: pods/log"), TransientError("no answer")])
async def test_patterns_of_the_logs_enter_the_record(tmp_path: Path, error: AgentError | None) -> None:
    """Nothing of the lines is stored; without an answer the incident goes on and says what is missing."""
    logs = Lines(error)

    def connected(world: Adapters) -> Adapters:
        return replace(world, logs=logs)

    async with story(tmp_path, connected=connected, dry_run=False, on_file=True) as stage:
        stage.deploy()
        await stage.live(180)
        assert logs.asked == []
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        told = messages(record.timeline)
        assert {(space, container, previous) for space, _, container, previous in logs.asked} <= {
            (NAMESPACE, "app", True),
            (NAMESPACE, "app", False),
        }
        assert logs.asked
        if error is not None:
            assert f"Unavailable: logs of pod {logs.asked[-1][1]}" in told
            return
        assert f"Patterns of logs: log of container app in pod {logs.asked[-1][1]}" in told
        assert PATTERN in told
    kept = _files(tmp_path)
    assert PATTERN.encode() in kept
    for raw in (b"hunter-two", b"db-7.internal", b"17:00:02Z"):
        assert raw not in kept


@pytest.mark.parametrize("left", [True, False])
async def test_the_record_says_whose_lines_were_read(tmp_path: Path, left: bool) -> None:
    """Of the container that ended only where something is left of it."""
    logs = Lines(left=left)
    async with story(tmp_path, connected=lambda world: replace(world, logs=logs)) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
    assert any(previous for *_, previous in logs.asked)
    found = messages(record.timeline)
    assert PATTERN in found
    assert ("before its restart" in found) is left


async def test_no_log_is_read_unless_it_is_allowed(tmp_path: Path) -> None:
    """The default: the part that reads logs is not constructed."""
    async with story(tmp_path) as stage:
        assert stage.agent.world.logs is None
        assert stage.agent.observer.logs is None
