"""An application with automated sync and self-heal is healed, wherever the agent's process is killed.

The agent is a process of its own; the control plane, Argo CD, the repository and
Prometheus are real. Each point is one write to Argo CD or to the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.argocd import ArgoCd
from testbed.git_http import GitHttpServer
from testbed.waiting import NotYet, wait_for
from testbed.world import TestBed
from tests.e2e.agent_process import ACTING, AgentProcess, story
from tests.gitops.applications import POLICY, SERVICE, RealApplication

pytestmark = pytest.mark.real

AT_ONCE = 2
POINTS = [
    f"{call}#1:{moment}"
    for call in (
        "gitops.writer.switch_off",
        "gitops.writer.roll_back",
        "gitops.repository.open",
        "gitops.writer.restore",
    )
    for moment in ("before", "after")
]


@contextmanager
def prepared(
    bed: TestBed, argocd: ArgoCd, server: GitHttpServer, root: Path, folder: Path
) -> Iterator[tuple[RealApplication, AgentProcess]]:
    """A service that automated sync released and that has served well, and an agent that has seen it."""
    made = RealApplication(bed, argocd, server, root)
    folder.mkdir()
    settings = {
        **ACTING,
        "ARGOCD_URL": argocd.url,
        "ARGOCD_TOKEN": argocd.token("heal"),
        "ARGOCD_TIMEOUT_SECONDS": "100",
        "GIT_REVERT": "branch",
        "GIT_REPOSITORIES": f'["{server.url}"]',
        "CRASH_ARMED": str(folder / "armed"),
        "CRASH_LOG": str(folder / "calls"),
    }
    agent = AgentProcess(
        folder=folder,
        namespace=made.namespace,
        kubeconfig=bed.control_plane.kubeconfig("agent"),
        prometheus_url=bed.monitoring.prometheus_url,
        settings=settings,
        module="tests.e2e.crashing_agent",
    )
    made.create()
    wait_for("the Deployment", lambda: _there(bed, made.namespace), timeout_seconds=90)
    bed.wait_rolled_out(made.namespace, SERVICE)
    load = bed.start_load(made.namespace, rps=5)
    try:
        yield made, agent
    finally:
        load.stop()
        agent.kill()


def _there(bed: TestBed, namespace: str) -> bool | NotYet:
    try:
        return bed.image(namespace, SERVICE) == "shop:1"
    except Exception as error:  # noqa: BLE001 - not there yet, whatever the client calls it
        return NotYet(str(error))


def played(
    point: str | None, bed: TestBed, argocd: ArgoCd, server: GitHttpServer, root: Path, folder: Path
) -> str | None:
    """Play the story, die at the point, start again; what ended wrongly, or None."""
    with prepared(bed, argocd, server, root, folder) as (made, agent):
        agent.start({"CRASH_POINT": point} if point else {})
        agent.wait_trusted(SERVICE, timeout_seconds=120)
        (folder / "armed").touch()
        made.repository.release("shop:2-crash")
        merges_later = point is not None and "restore" in point
        if point is not None and not merges_later:
            if not agent.wait_killed(timeout_seconds=120):
                return f"{point}: was never reached; {agent.log_tail()}"
            agent.start()
        (branch,) = wait_for("the revert", lambda: _branches(made, agent), timeout_seconds=180)
        made.repository.merge(branch)
        if merges_later:
            if not agent.wait_killed(timeout_seconds=120):
                return f"{point}: was never reached; {agent.log_tail()}"
            agent.start()
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=180)
        return _wrong(made, incident, bed, argocd, server)


def _branches(made: RealApplication, agent: AgentProcess) -> list[str] | NotYet:
    found = made.repository.branches()
    if found:
        return found
    incidents = agent.incidents(SERVICE)
    return NotYet(story(incidents[0]) if incidents else "no incident")


def _wrong(
    made: RealApplication, incident: dict[str, object], bed: TestBed, argocd: ArgoCd, server: GitHttpServer
) -> str | None:
    told = story(incident)
    if incident["state"] != "recovered" or bed.image(made.namespace, SERVICE) != "shop:1":
        return told
    application = made.application()
    if application["spec"]["syncPolicy"]["automated"] != POLICY:
        return f"the policy is {application['spec']['syncPolicy']}\n{told}"
    if application["status"]["sync"]["status"] != "Synced":
        return f"drift is left: {application['status']['sync']}\n{told}"
    calls = argocd.writes(made.namespace)
    pushes = server.pushes.count(f"/{made.namespace}/shop.git")
    if calls != ["Patch", "Rollback", "Patch"] or pushes != 1 or len(made.repository.branches()) != 1:
        log = "\n".join(line for line in argocd.log().splitlines() if "Rollback" in line)[:2000]
        return f"Argo CD saw {calls}, the repository {pushes} pushes\n{told}\n{log}"
    return None


def test_the_end_is_the_same_wherever_the_agent_is_killed(
    testbed_world: TestBed, argocd: ArgoCd, git_server: GitHttpServer, git_root: Path, tmp_path: Path
) -> None:
    """Healed, reverted, given back to automated sync without drift: each call once by the servers' logs."""
    testbed_world.start_monitoring()

    def at(point: str | None) -> str | None:
        folder = tmp_path / re.sub(r"\W+", "-", point or "undisturbed")
        return played(point, testbed_world, argocd, git_server, git_root, folder)

    assert at(None) is None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [
            f"{point}: {failure}"
            for point, failure in zip(POINTS, pool.map(at, POINTS), strict=True)
            if failure is not None
        ]
    print(f"killed at {len(POINTS)} points, {len(failures)} ended wrongly")  # noqa: T201 - figures for the log
    assert not failures, "\n\n".join(failures)
