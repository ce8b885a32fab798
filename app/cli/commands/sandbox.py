"""What `heal sandbox` asks the running sandbox over HTTP."""

from __future__ import annotations

from urllib.parse import quote

from rich.table import Table

from app.agent.evidence.format import counted
from app.cli.commands.agent_client import RunningAgent, default_url, running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.output import printable
from app.config import Settings
from app.schemas import SandboxView, ScenarioRunView, VersionView

_PATH = "/v1/sandbox"


async def start(settings: Settings, url: str | None, name: str) -> ScenarioRunView:
    """Start a scenario; raises `CommandFailed` where no sandbox runs, or none offers it."""
    agent = await _sandbox(settings, url)
    reply = await agent.ask(f"{_PATH}/scenarios/{quote(name, safe='')}/start", method="POST")
    if reply is None:
        raise _absent(agent.base)
    return agent.parsed(ScenarioRunView, reply)


async def load(settings: Settings, url: str | None) -> SandboxView:
    """The scenarios on offer and the newest run; raises `CommandFailed` where no sandbox runs."""
    agent = await _sandbox(settings, url)
    reply = await agent.ask(_PATH)
    if reply is None:
        raise _absent(agent.base)
    return agent.parsed(SandboxView, reply)


def table(view: SandboxView) -> Table:
    """The scenarios, each with its title and what happens."""
    found = Table(box=None, pad_edge=False)
    for heading in ("SCENARIO", "TITLE", "ABOUT"):
        found.add_column(heading, no_wrap=heading == "SCENARIO")
    for one in view.scenarios:
        found.add_row(one.name, printable(one.title), printable(one.about))
    return found


def newest(view: SandboxView) -> str:
    """The newest run, as a sentence."""
    if view.run is None:
        return f"{counted(len(view.scenarios), 'scenario')}, none started yet."
    seconds = (view.now - view.run.started_at).total_seconds()
    return printable(
        f"Started last: {view.run.scenario} in the environment {view.run.environment}, "
        f"{seconds:.0f} simulated seconds ago."
    )


async def _sandbox(settings: Settings, url: str | None) -> RunningAgent:
    """The running sandbox; an agent that is connected to real systems does not count."""
    agent = running_agent(settings, url)
    reply = await agent.ask("/version")
    if reply is None:
        raise _absent(default_url(settings))
    if not agent.parsed(VersionView, reply).sandbox:
        raise CommandFailed(
            f"the agent at {agent.base} is not a sandbox; start one with `heal sandbox`, on another --port"
        )
    return agent


def _absent(base: str) -> CommandFailed:
    return CommandFailed(
        f"no sandbox answers at {base}; start one with `heal sandbox`, or name its address with --url"
    )
