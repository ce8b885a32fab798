"""The scenarios of the sandbox: each ends as its file says, with a person who answers as it says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.models import Cause
from app.benchmarks.sandbox_run import play
from app.config import Settings
from app.sandbox.cluster import SandboxCluster
from app.sandbox.scenarios.judge import Judgement
from app.sandbox.scenarios.playground import Playground, offered
from app.simulation.sandbox import sandbox_settings
from app.testing import VirtualClock
from app.web.story import commands

NAMES = tuple(one.scenario.id for one in offered(None))
RUNBOOKS = Path(__file__).parents[2] / "runbooks"


async def played(*names: str) -> list[Judgement]:
    """Start scenarios one after the other on one store, each to its horizon."""
    settings = sandbox_settings(Settings(_env_file=None, runbooks_dir=RUNBOOKS, sandbox=True))
    known = {one.scenario.id: one for one in offered(None)}
    ended = await play(settings, [known[name] for name in names], VirtualClock)
    return [one.judgement for one in ended]


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
async def test_a_scenario_ends_as_its_file_says(name: str) -> None:
    """With the shipped runbooks and policies and the times of the sandbox."""
    (judgement,) = await played(name)
    assert judgement.right, judgement.why


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "cause", "line"),
    [
        ("service-port", Cause.SERVICE_ROUTING, "get service seats "),
        ("network-policy", Cause.NETWORK_POLICY, "get networkpolicy "),
    ],
)
async def test_what_carries_requests_is_named_with_a_line_to_inspect_it(
    name: str, cause: Cause, line: str
) -> None:
    """The incident is escalated with its cause and the object; the agent writes nothing."""
    settings = sandbox_settings(Settings(_env_file=None, runbooks_dir=RUNBOOKS, sandbox=True))
    (known,) = [one for one in offered(None) if one.scenario.id == name]
    (ended,) = await play(settings, [known], VirtualClock)
    (record,) = ended.records
    assert record.incident.diagnosis is not None
    assert record.incident.diagnosis.best.cause is cause
    assert record.intents == ()
    assert any(line in one for one in commands(record)), commands(record)


@pytest.mark.real
async def test_an_earlier_run_does_not_change_the_next() -> None:
    """What the agent remembers of a failed release is of another environment."""
    judgements = await played(NAMES[0], NAMES[0])
    assert [one.right for one in judgements] == [True, True], [one.why for one in judgements]


def test_runs_are_counted_across_processes(tmp_path: Path) -> None:
    """A kept folder never gives an environment twice."""
    environments = []
    for _ in range(2):
        playground = Playground(
            clock=VirtualClock(),
            scenarios=offered(None),
            environment="sandbox",
            counted_in=tmp_path / "runs",
        )
        environments += [playground.start(NAMES[0]).environment for _ in range(2)]
    assert environments == ["sandbox", "sandbox-2", "sandbox-3", "sandbox-4"]


async def test_an_event_happens_at_its_moment() -> None:
    """Not before, once, and what the pipeline reports names the environment of the run."""
    clock = VirtualClock()
    playground = Playground(clock=clock, scenarios=offered(None), environment="sandbox")
    playground.start(NAMES[0])
    run = playground.start(NAMES[0])
    told: list[str] = []

    async def listen(reported: object) -> None:
        told.append(str(reported))

    due = run.variant.events[0].at
    heard = []
    for seconds in (due - 1, 1, 1):
        await clock.advance(seconds)
        await playground.step(listen)
        heard.append(len(told))
    assert heard == [0, 1, 1]
    assert "environment='sandbox-2'" in told[0]
    assert clock.now() - run.started_at == timedelta(seconds=due + 1)


async def test_a_watch_notices_that_another_world_plays() -> None:
    """The services of a new run are seen at once, those of the last one no more."""
    clock = VirtualClock()
    playground = Playground(clock=clock, scenarios=offered(None), environment="sandbox")
    events = SandboxCluster.following(playground.world).watch.events()
    for name in NAMES[:2]:
        run = playground.start(name)
        seen = [await clock.run_until(anext(events)) for _ in run.stage.names]
        assert {(one.key.environment, one.key.service) for one in seen} == set(run.stage.names)
    await events.aclose()
