"""`heal demo`: an incident from bad release to recovery, shown live in the terminal."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from app.agent.evidence.format import milliseconds, share
from app.agent.models import (
    IncidentRecord,
    IncidentState,
    SliSample,
    TimelineEntry,
)
from app.agent.workload import WorkloadView
from app.cli.commands.agent_client import default_url
from app.cli.commands.demo_live import LiveStory, play_live
from app.cli.commands.demo_simulated import StoryPace, play, simulation_settings
from app.cli.commands.incidents import sqlite_path
from app.cli.commands.output import StoryPrinter, printable, state_text
from app.config import Settings
from app.sandbox.scenarios.story import BAD_RELEASE
from app.testing import VirtualClock

_WALL_SECONDS_PER_SECOND = 0.04


class ConsoleStory:
    """Prints the progress of a demo to a terminal."""

    def __init__(self, console: Console) -> None:
        self._story = StoryPrinter(console)

    def happened(self, at: datetime, text: str) -> None:
        self._story.aside(at, text, "bold")

    def levels(self, at: datetime, sli: SliSample, workload: WorkloadView | None) -> None:
        parts = []
        if sli.error_rate is not None:
            parts.append(f"errors {share(sli.error_rate)}")
        if sli.p95_latency_ms is not None:
            parts.append(f"p95 {milliseconds(sli.p95_latency_ms)}")
        if workload is not None:
            parts.append(f"{workload.ready_replicas}/{workload.desired_replicas} pods ready")
            if workload.revisions:
                image = workload.revisions[0].images[0]
                parts.append(image.rpartition("/")[2])
        self._story.aside(at, ", ".join(parts) or "nothing measured yet", "dim")

    def entry(self, entry: TimelineEntry) -> None:
        self._story.line(entry)

    def end(self) -> None:
        self._story.flush()


async def simulate(settings: Settings, console: Console, *, dry_run: bool, fast: bool) -> IncidentRecord:
    """Play the bad release on the simulated cluster and say how to look at it afterwards."""
    wanted = simulation_settings(settings, dry_run=dry_run)
    may = "All actions are allowed, including high-risk ones: no real system is changed."
    _announce(
        console,
        "SIMULATION",
        "cluster, traffic and time are simulated in this process; the agent is the real one.\n"
        f"{BAD_RELEASE.title}.\n",
        _PROPOSES if dry_run else may,
    )
    pace = StoryPace(wall_seconds_per_second=0.0 if fast else _WALL_SECONDS_PER_SECOND)
    story_listener = ConsoleStory(console)
    played = await play(wanted, BAD_RELEASE, VirtualClock, story_listener, pace)
    story_listener.end()
    record = played.incidents[0]
    _conclude(settings, console, record)
    if record.incident.state is IncidentState.PROPOSED:
        console.print("The simulated service still fails: a dry run only proposes.")
    return record


async def play_real(story: LiveStory, console: Console) -> IncidentRecord:
    """Play the bad release on a real cluster."""
    may = "All actions on this service are allowed, including high-risk ones."
    _announce(
        console,
        "REAL CLUSTER",
        f"{story.key} gets the release {story.image}; cluster and metrics are real.\n",
        _PROPOSES if story.settings.dry_run else may,
    )
    story_listener = ConsoleStory(console)
    record = await play_live(story, story_listener)
    story_listener.end()
    _conclude(story.settings, console, record)
    if record.incident.state is not IncidentState.RECOVERED:
        console.print("The demo restored the good image.")
    return record


_PROPOSES = "Dry run: nothing is changed; the agent only proposes."


def _announce(console: Console, label: str, what: str, may: str) -> None:
    text = Text.assemble((label, "bold yellow"), ": ", what, may)
    console.print(Panel(text, title="heal demo", border_style="yellow"))


def _conclude(settings: Settings, console: Console, record: IncidentRecord) -> None:
    """Print the result, and how to show the incident again."""
    incident = record.incident
    console.print()
    console.print(Text.assemble("Closed: ", state_text(incident.state), f". {printable(incident.summary)}"))
    file = sqlite_path(settings)
    where = file.absolute() if file is not None else "the database of DATABASE_URL"
    console.print(
        printable(f"Recorded in {where} (environment {incident.key.environment}). Show it with"),
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    console.print(f"  heal show {incident.id}", style="bold", soft_wrap=True)
    console.print("or, while `heal run` runs, at")
    console.print(
        f"  {default_url(settings)}/dashboard/incidents/{incident.id}", style="bold", soft_wrap=True
    )
