"""The connector of Flux over the real controllers, on a real control plane with a real repository."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.gitops_suite")

from testbed.flux import Flux  # noqa: E402 - after the rewrite is registered
from testbed.git_http import GitHttpServer  # noqa: E402 - as above
from testbed.rbac import AGENT  # noqa: E402 - as above
from testbed.waiting import NotYet, wait_for  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - as above
from tests.contract.gitops_suite import GitOpsContract, GitOpsWorld  # noqa: E402 - as above
from tests.e2e.agent_process import ACTING, AgentProcess, story  # noqa: E402 - as above
from tests.gitops.kustomizations import SERVICE, RealKustomization  # noqa: E402 - as above
from tests.gitops.test_crashes import AT_ONCE, POINTS  # noqa: E402 - as above

pytestmark = pytest.mark.real


class TestFlux(GitOpsContract):
    @pytest.fixture
    async def world(
        self, testbed_world: TestBed, flux: Flux, git_server: GitHttpServer, git_root: Path
    ) -> AsyncIterator[GitOpsWorld]:
        made = await asyncio.to_thread(RealKustomization, testbed_world, git_server, git_root)
        try:
            await asyncio.to_thread(made.create)
            yield await made.world()
        finally:
            await made.close()


def played(point: str | None, bed: TestBed, server: GitHttpServer, root: Path, folder: Path) -> str | None:
    """Play the story, die at the point, start again; what ended wrongly, or None."""
    made = RealKustomization(bed, server, root)
    folder.mkdir()
    settings = {
        **ACTING,
        "FLUX_ENABLED": "true",
        "KUBE_TIMEOUT_SECONDS": "100",
        "GIT_REVERT": "branch",
        "GIT_REPOSITORIES": f'["{server.url}"]',
        "CRASH_ARMED": str(folder / "armed"),
        "CRASH_LOG": str(folder / "calls"),
    }
    agent = AgentProcess(
        folder=folder,
        namespace=made.namespace,
        kubeconfig=bed.control_plane.kubeconfig(AGENT),
        prometheus_url=bed.monitoring.prometheus_url,
        settings=settings,
        module="tests.e2e.crashing_agent",
    )
    made.create()
    wait_for("the Deployment", lambda: _there(bed, made.namespace), timeout_seconds=90)
    bed.wait_rolled_out(made.namespace, SERVICE)
    load = bed.start_load(made.namespace, rps=5)
    try:
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
        return _wrong(made, incident, bed, server)
    finally:
        load.stop()
        agent.kill()


def _there(bed: TestBed, namespace: str) -> bool | NotYet:
    try:
        return bed.image(namespace, SERVICE) == "shop:1"
    except Exception as error:  # noqa: BLE001 - not there yet, whatever the client calls it
        return NotYet(str(error))


def _branches(made: RealKustomization, agent: AgentProcess) -> list[str] | NotYet:
    found = made.repository.branches()
    if found:
        return found
    incidents = agent.incidents(SERVICE)
    return NotYet(story(incidents[0]) if incidents else "no incident")


def _wrong(
    made: RealKustomization, incident: dict[str, object], bed: TestBed, server: GitHttpServer
) -> str | None:
    told = story(incident)
    if incident["state"] != "recovered" or bed.image(made.namespace, SERVICE) != "shop:1":
        return told
    source = made.source()
    if source.spec.get("suspend") or "commit" in source.spec["ref"]:
        return f"the source is {source.spec}\n{told}"
    changes = [
        event.verb
        for event in bed.control_plane.audit_events()
        if (event.namespace, event.resource) == (made.namespace, "gitrepositories")
        if event.user == AGENT and event.effective
    ]
    pushes = server.pushes.count(f"/{made.namespace}/shop.git")
    if changes != ["patch"] * 3 or pushes != 1 or len(made.repository.branches()) != 1:
        return f"the API server saw {changes}, the repository {pushes} pushes\n{told}"
    return None


def test_the_end_is_the_same_wherever_the_agent_is_killed(
    testbed_world: TestBed, flux: Flux, git_server: GitHttpServer, git_root: Path, tmp_path: Path
) -> None:
    """Healed, reverted, given back to its branch: each change once by the API server's audit log."""
    testbed_world.start_monitoring()

    def at(point: str | None) -> str | None:
        folder = tmp_path / re.sub(r"\W+", "-", point or "undisturbed")
        return played(point, testbed_world, git_server, git_root, folder)

    assert at(None) is None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [
            f"{point}: {failure}"
            for point, failure in zip(POINTS, pool.map(at, POINTS), strict=True)
            if failure is not None
        ]
    print(f"killed at {len(POINTS)} points, {len(failures)} ended wrongly")  # noqa: T201 - figures for the log
    assert not failures, "\n\n".join(failures)
