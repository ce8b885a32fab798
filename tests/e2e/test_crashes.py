"""kill -9 at every step of the story: the same end, with one rollback in the API server's audit log.

At the size of a change a share of the points is tried (`tests.sizes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.controlplane import ControlPlane
from testbed.world import TestBed
from tests import sizes
from tests.e2e.agent_process import ACTING, AgentProcess, story
from tests.e2e.conftest import agent_writes

pytestmark = pytest.mark.real

SERVICE = "shop"
AT_ONCE = 4
REPEATS_TRIED = 2
"""Of a call that recurs (a look while verifying), the first ones are died at."""

MUST_BE_TRIED = (
    "store.signals.accept#1",
    "store.incidents.save[open]#1",
    "store.intents.add[executing]#1",
    "store.intents.begin#1",
    "writer.apply#1",
    "store.intents.finish[done]#1",
    "store.incidents.save[verifying]#1",
    "store.incidents.save[recovered]#1",
    "store.history.record_revision#1",
    "rehearsal.rehearse#1",
    "reader.target#1",
    "reader.target#2",
    "reader.snapshot#1",
)


@contextmanager
def prepared(bed: TestBed, control_plane: ControlPlane, folder: Path) -> Iterator[AgentProcess]:
    """A service that has served well under traffic, and an agent with a fuse that has seen it."""
    namespace = bed.create_namespace()
    folder.mkdir()
    agent = AgentProcess(
        folder=folder,
        namespace=namespace,
        kubeconfig=control_plane.kubeconfig("agent"),
        prometheus_url=bed.monitoring.prometheus_url,
        settings={**ACTING, "CRASH_ARMED": str(folder / "armed"), "CRASH_LOG": str(folder / "calls")},
        module="tests.e2e.crashing_agent",
    )
    bed.deploy(namespace, SERVICE, "shop:1", replicas=2)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=5)
    try:
        yield agent
    finally:
        load.stop()
        agent.kill()
        bed.delete_namespace(namespace)


def test_the_end_is_the_same_wherever_the_agent_is_killed(
    monitored_world: TestBed, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """Before and after every durable write and every API call of the story."""
    points = _points(monitored_world, control_plane, tmp_path / "recorded")
    missing = [label for label in MUST_BE_TRIED if f"{label}:before" not in points]
    assert not missing, f"the story never came by {missing}; it came by {points}"

    def at(point: str) -> str | None:
        folder = tmp_path / re.sub(r"\W+", "-", point)
        return _killed_at(point, monitored_world, control_plane, folder)

    tried = sizes.crash_points(points)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [failure for failure in pool.map(at, tried) if failure is not None]
    print(  # noqa: T201 - figures for the log
        f"killed at {len(tried)} of {len(points)} points, {len(failures)} ended wrongly: {', '.join(tried)}"
    )
    assert not failures, "\n\n".join(failures)


def _points(bed: TestBed, control_plane: ControlPlane, folder: Path) -> list[str]:
    """Every point of an undisturbed story."""
    with prepared(bed, control_plane, folder) as agent:
        agent.start()
        agent.wait_trusted(SERVICE)
        (folder / "armed").touch()
        bed.set_image(agent.namespace, SERVICE, "shop:2-crash")
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
        assert incident["state"] == "recovered", story(incident)
        calls = (folder / "calls").read_text().split()
    labels = [label for label in dict.fromkeys(calls) if int(label.rpartition("#")[2]) <= REPEATS_TRIED]
    return [f"{label}:{moment}" for label in labels for moment in ("before", "after")]


def _killed_at(point: str, bed: TestBed, control_plane: ControlPlane, folder: Path) -> str | None:
    """Play the story, die at the point, start again; what ended wrongly, or None."""
    with prepared(bed, control_plane, folder) as agent:
        agent.start({"CRASH_POINT": point})
        agent.wait_trusted(SERVICE)
        (folder / "armed").touch()
        bed.set_image(agent.namespace, SERVICE, "shop:2-crash")
        if not agent.wait_killed(timeout_seconds=90):
            return f"{point}: was never reached; {agent.log_tail()}"
        agent.start()
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
        writes = agent_writes(control_plane, agent.namespace)
        if incident["state"] != "recovered" or bed.image(agent.namespace, SERVICE) != "shop:1":
            return f"{point}: {story(incident)}"
        if writes != [f"patch deployments/{SERVICE}"]:
            return f"{point}: the API server saw {writes}\n{story(incident)}"
        if len(agent.incidents(SERVICE)) != 1:
            return f"{point}: {len(agent.incidents(SERVICE))} incidents"
    return None
