"""The promises of the logs of containers, for every cluster behind them.

A test module of an adapter imports these tests with `*`, beside those of `cluster_suite`.
"""

from __future__ import annotations

import pytest

from app.agent.workload import LogTail
from app.errors import Forbidden, PermanentError
from tests.contract.cluster_harness import ClusterHarness


async def test_the_last_lines_of_a_container_are_read_within_bounds(cluster: ClusterHarness) -> None:
    """Two hundred of them, oldest first; none without the right, and none of a pod that is not there."""
    pod = await cluster.logged([f"line {number}" for number in range(300)])
    read = await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=False)
    assert read == LogTail(lines=tuple(f"line {number}" for number in range(100, 300)), previous=False)
    # Nothing is left of an earlier container: the lines of this one say what there is, and whose they are.
    assert await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=True) == read
    with pytest.raises(Forbidden):
        await cluster.powerless.logs.tail(cluster.ref("Pod", pod), "app", previous=False)
    with pytest.raises(PermanentError):
        await cluster.ports.logs.tail(cluster.ref("Pod", "another"), "app", previous=False)


async def test_long_lines_are_bounded(cluster: ClusterHarness) -> None:
    """The last line is among the 64 KiB, however long the lines before it are."""
    long = [f"{number} " + "x" * 1_000 for number in range(300)]
    pod = await cluster.logged([*long, "it ended here"])
    read = await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=False)
    assert read.lines[-1] == "it ended here"
    assert 0 < sum(len(line) for line in read.lines[:-1]) <= 64 * 1024


async def test_the_container_that_ended_is_read(cluster: ClusterHarness) -> None:
    """Where something is left of it, and the answer says so."""
    pod = await cluster.logged(["started again"], previous=["it ended here"])
    read = await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=True)
    assert read == LogTail(lines=("it ended here",), previous=True)
    read = await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=False)
    assert read == LogTail(lines=("started again",), previous=False)
