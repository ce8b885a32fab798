"""`heal demo`: an incident from bad release to recovery, told in the terminal as it happens."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from app.agent.models import IncidentRecord, IncidentState, SliSample, TimelineEntry, WorkloadView
from app.commands.reading import sqlite_path
from app.commands.simulation import Pace, Played, play, simulation_settings, story_start
from app.commands.terminal import elapsed, print_line, printable, state_text
from app.config import Settings
from app.sandbox.scenarios import BAD_RELEASE
from app.testing import VirtualClock

_WALL_SECONDS_PER_SECOND = 0.04


class ConsoleTeller:
    """Tells a story to a terminal."""

    def __init__(self, console: Console, since: datetime) -> None:
        self._console = console
        self._since = since

    def happened(self, at: datetime, text: str) -> None:
        self._print(at, text, "bold")

    def levels(self, at: datetime, sli: SliSample, workload: WorkloadView | None) -> None:
        parts = []
        if sli.error_rate is not None:
            parts.append(f"errors {sli.error_rate:.1%}")
        if sli.p95_latency_ms is not None:
            parts.append(f"p95 {sli.p95_latency_ms:.0f} ms")
        if workload is not None:
            parts.append(f"{workload.ready_replicas}/{workload.desired_replicas} pods ready")
            if workload.revisions:
                image = workload.revisions[0].images[0]
                parts.append(image.rpartition("/")[2])
        self._print(at, ", ".join(parts) or "nothing measured yet", "dim")

    def entry(self, entry: TimelineEntry) -> None:
        print_line(self._console, entry, self._since)

    def _print(self, at: datetime, text: str, style: str) -> None:
        line = Text.assemble((f"{elapsed(at - self._since):>8}", "dim"), " ", (printable(text), style))
        self._console.print(line)


async def simulate(settings: Settings, console: Console, *, dry_run: bool) -> IncidentRecord:
    """Play the bad release on the simulated cluster and say how to look at it afterwards."""
    wanted = simulation_settings(settings, dry_run=dry_run)
    clock = VirtualClock(story_start())
    console.print(
        Panel(
            Text.assemble(
                ("SIMULATION", "bold yellow"),
                ": cluster, traffic and time are simulated in this process; the agent is the real one.\n",
                f"{BAD_RELEASE.title}.\n",
                "Dry run: nothing is changed, the agent says what it would do."
                if dry_run
                else "The agent may act, high-risk actions included: nothing real is at risk.",
            ),
            title="heal demo",
            border_style="yellow",
        )
    )
    pace = Pace(wall_seconds_per_second=_WALL_SECONDS_PER_SECOND)
    teller = ConsoleTeller(console, clock.now())
    played = await play(wanted, BAD_RELEASE, clock, teller, pace)
    return _told_ending(settings, console, played)


def _told_ending(settings: Settings, console: Console, played: Played) -> IncidentRecord:
    record = played.incidents[0]
    incident = record.incident
    console.print()
    console.print(Text.assemble("Ended as ", state_text(incident.state), f": {printable(incident.summary)}"))
    if incident.state is IncidentState.PROPOSED:
        console.print("The simulated service still fails: a dry run proposes, and a person decides.")
    where = sqlite_path(settings) or "the database of DATABASE_URL"
    console.print(f"It is on record in {where} (environment {incident.key.environment}). Look at it with")
    console.print(f"  heal show {incident.id}", style="bold", soft_wrap=True)
    console.print("or, while `heal run` runs, at")
    console.print(
        f"  http://{settings.host}:{settings.port}/incidents/{incident.id}", style="bold", soft_wrap=True
    )
    return record
