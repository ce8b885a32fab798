"""Terminal output of incidents: the table and the timeline.

`heal incidents`, `heal show` and `heal demo` call it. External text is printed
literally: rich markup in it is not interpreted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.agent.evidence.format import confidence, counted, in_words
from app.agent.guardrails.limits.clusters import UNNAMED
from app.agent.guardrails.limits.clusters import in_words as cluster_in_words
from app.agent.models import ApprovalState, IncidentState, OutcomeKind, Stage
from app.durations import age, span
from app.schemas import ActionView, ApprovalView, BrakesView, BrakeView, IncidentSummary, IncidentView

_STAGE_STYLES = {
    Stage.OBSERVE: "cyan",
    Stage.DIAGNOSE: "magenta",
    Stage.PLAN: "blue",
    Stage.POLICY: "yellow",
    Stage.EXECUTE: "bold white",
    Stage.VERIFY: "green",
    Stage.UNDO: "red",
    Stage.LEARN: "bright_black",
}
_STATE_STYLES = {
    IncidentState.RECOVERED: "bold green",
    IncidentState.RECOVERED_WITHOUT_ACTION: "green",
    IncidentState.PROPOSED: "bold yellow",
    IncidentState.ESCALATED: "bold red",
    IncidentState.RESOLVED_BY_HAND: "green",
}
_STAGE_WIDTH = 9
_ID_WIDTH = 36
_WIDE = 120


class Line(Protocol):
    """What is printed of a timeline entry."""

    @property
    def at(self) -> datetime: ...

    @property
    def stage(self) -> Stage: ...

    @property
    def message(self) -> str: ...

    @property
    def data(self) -> Mapping[str, object]: ...


def printable(text: str) -> str:
    """External text without control characters, which a terminal would execute."""
    return "".join(c if c.isprintable() or c == " " else "�" for c in text.replace("\n", " "))


def state_text(state: IncidentState) -> Text:
    return Text(in_words(state), style=_STATE_STYLES.get(state, "bold cyan"))


def status_line(incident: IncidentSummary) -> str:
    """The state of an incident after a person's command."""
    owner = f", owner {incident.owner}" if incident.owner else ""
    held = f", taken over by {incident.taken_over.by}" if incident.taken_over else ""
    named = f"{incident.service} in {incident.environment}"
    return printable(
        f"{incident.id} ({named}): {in_words(incident.state)}{owner}{held}. {incident.next_step}"
    )


class StoryPrinter:
    """Prints timeline entries in order: the time since the story began, the stage, the sentence.

    Signals that join one after another and add no trigger are counted instead
    of printed: the record has them all, the reader needs them once.
    """

    def __init__(self, console: Console, since: datetime | None = None) -> None:
        """The story begins at `since`, or with what is printed first."""
        self._console = console
        self._since = since
        self._triggers: set[object] = set()
        self._after_signal = False
        self._folded: list[Line] = []

    def line(self, line: Line) -> None:
        is_signal = line.stage is Stage.OBSERVE and "signal_id" in line.data
        recorded = line.data.get("triggers")
        triggers = set(recorded) if isinstance(recorded, list) else set()
        adds = not triggers <= self._triggers
        self._triggers |= triggers
        if is_signal and self._after_signal and not adds:
            self._folded.append(line)
            return
        self.flush()
        self._after_signal = is_signal
        self._row(
            line.at, Text(line.stage.value, style=_STAGE_STYLES[line.stage]), Text(printable(line.message))
        )

    def aside(self, at: datetime, text: str, style: str) -> None:
        """Print a line that is not an entry of the record."""
        self._row(at, Text("-", style="dim"), Text(printable(text), style=style))

    def flush(self) -> None:
        """Print the number of folded signals; call it at the end."""
        if self._folded:
            count, last = len(self._folded), self._folded[-1]
            more = f"{counted(count, 'more signal')}; latest: {last.message}"
            self._row(last.at, Text("observe", style="dim"), Text(printable(more), style="dim"))
        self._folded.clear()

    def _row(self, at: datetime, stage: Text, text: Text) -> None:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=10, justify="right", style="dim")
        table.add_column(width=_STAGE_WIDTH)
        table.add_column(ratio=1)
        self._since = self._since or at
        table.add_row(elapsed(at - self._since), stage, text)
        self._console.print(table)


def elapsed(since: timedelta) -> str:
    """`+12 s`, `+3 m 5 s`, `+2 h`, `+4 days`."""
    return f"+{age(since)}"


def print_table(console: Console, incidents: Iterable[IncidentSummary]) -> None:
    """Incidents, one a row, newest first; a narrow terminal gets what identifies them."""
    console.print(incident_table(console, incidents))


def incident_table(console: Console, incidents: Iterable[IncidentSummary]) -> Table:
    """The same as a table."""
    wide = console.width >= _WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("ID", no_wrap=True, min_width=_ID_WIDTH)
    table.add_column("OPENED (UTC)", no_wrap=True, min_width=11)
    table.add_column("SERVICE", overflow="fold")
    table.add_column("STATE", overflow="fold")
    if wide:
        table.add_column("CAUSE", overflow="fold")
        table.add_column("ACTIONS", overflow="fold")
    for one in incidents:
        opened = f"{one.opened_at:%Y-%m-%d %H:%M:%S}" if wide else f"{one.opened_at:%m-%d %H:%M}"
        service = Text(printable(f"{one.service} in {one.environment}"))
        row: list[str | Text] = [one.id, opened, service, state_text(one.state)]
        if wide:
            actions = ", ".join(f"{action_words(a, one.actions)} {ending(a)}" for a in one.actions) or "-"
            found = one.diagnosis
            cause = f"{in_words(found.cause)} {confidence(found.confidence)}" if found is not None else "-"
            row += [cause, actions + (" (dry run)" if one.dry_run else "")]
        table.add_row(*row)
    return table


def print_story(
    console: Console, incident: IncidentView, broken_at: int | None, discrepancies: Sequence[str] = ()
) -> None:
    """The whole incident: its summary, its timeline, its actions, and whether the record is intact."""
    console.print(
        Text.assemble(
            (printable(incident.service), "bold"),
            f" in {printable(incident.environment)}: ",
            state_text(incident.state),
            " (dry run)" if incident.dry_run else "",
        )
    )
    if incident.summary:
        console.print(Text(printable(incident.summary)))
    opened = (
        f"opened {incident.opened_at:%Y-%m-%d %H:%M:%S} UTC ({', '.join(map(in_words, incident.triggers))})"
    )
    if incident.closed_at is not None:
        opened += f", closed after {span(incident.closed_at - incident.opened_at)}"
    console.print(Text(f"{incident.id}, {opened}", style="dim"))
    console.print()
    story = StoryPrinter(console, incident.opened_at)
    for line in incident.timeline:
        story.line(line)
    story.flush()
    console.print()
    _print_actions(console, incident)
    _print_chain(console, len(incident.timeline), broken_at, discrepancies)


def ending(action: ActionView) -> str:
    """How an action ended, in words: `proposed` for a dry run that no API server was asked about."""
    if action.outcome is OutcomeKind.REHEARSED and action.rehearsal is None:
        return "proposed"
    return in_words(action.outcome or action.state)


def action_words(action: ActionView, actions: Sequence[ActionView]) -> str:
    """The action in words; of an undo, what it undoes: `undo of rollback`."""
    undone = next((one for one in actions if one.id == action.undoes), None)
    return action.name.words if undone is None else f"{action.name.words} of {undone.name.words}"


def print_approvals(console: Console, approvals: Iterable[ApprovalView]) -> None:
    """Approvals, newest first, one per paragraph: action, target, reasons, expiry and answer."""
    for one in approvals:
        console.print(Text.assemble((one.id, "bold"), " ", *_asked(one)))
        console.print(Text(f"  {printable('; '.join(one.reasons))}", style="dim"), soft_wrap=True)


def _asked(one: ApprovalView) -> tuple[str | tuple[str, str], ...]:
    planned = one.planned
    target = planned.target if planned is not None else None
    where = f" on {target.kind} {target.namespace}/{target.name}" if target is not None else ""
    risk = f" ({planned.risk} risk)" if planned is not None else ""
    until = f", until {one.expires_at:%Y-%m-%d %H:%M:%S} UTC" if one.state is ApprovalState.PENDING else ""
    verb = "denied" if one.decision == "deny" else "approved"
    did = "" if one.state.value == verb else f", {verb}"
    by = f"{did} by {one.answered_by}" if one.answered_by else ""
    said = f" ({one.comment})" if one.comment else ""
    style = "bold yellow" if one.state is ApprovalState.PENDING else "dim"
    return (
        printable(f"{one.action.words}{where}{risk} for {one.service} in {one.environment}: "),
        (one.state.value, style),
        printable(f"{by}{said}{until}"),
    )


def answer_line(view: ApprovalView) -> str:
    """The result of an answer, in one sentence."""
    verb = "denied" if view.decision == "deny" else "approved"
    line = f"{view.action.words} for {view.service} in {view.environment}: {verb} by {view.answered_by}."
    if view.state is ApprovalState.VOID:
        line += " It is void: the action is no longer planned."
    return printable(line)


def brake_line(view: BrakeView) -> str:
    """The state of the kill switch, in one sentence."""
    stands = "engaged: no new action begins" if view.engaged else "released"
    if view.by is None or view.at is None:
        return f"The kill switch is {stands}; it was never engaged."
    why = f": {view.reason}" if view.reason else ""
    return printable(f"The kill switch is {stands} (by {view.by}, {view.at:%Y-%m-%d %H:%M:%S} UTC{why}).")


def brake_lines(view: BrakesView | BrakeView) -> Iterator[str]:
    """The guardrails, one per line."""
    if isinstance(view, BrakeView):
        yield brake_line(view)
        return
    yield brake_line(view.kill_switch)
    for freeze in view.freezes:
        if freeze.holds_until is not None:
            yield printable(f"Freeze {freeze.name} lasts until {freeze.holds_until:%Y-%m-%d %H:%M:%S} UTC.")
        elif freeze.next_start is not None:
            yield printable(f"Freeze {freeze.name} starts at {freeze.next_start:%Y-%m-%d %H:%M:%S} UTC.")
    for circuit in view.circuits:
        whose = (
            f"{circuit.service} in {circuit.environment}"
            if circuit.service
            else cluster_in_words(circuit.cluster or UNNAMED)
        )
        yield printable(f"The circuit breaker of {whose} is {circuit.reason}.")


def _print_actions(console: Console, incident: IncidentView) -> None:
    for asked in incident.approvals:
        console.print(Text.assemble(f"{asked.id} ", *_asked(asked)))
    for action in incident.actions:
        target = action.target
        where = f" on {target.kind} {target.namespace}/{target.name}" if target is not None else ""
        text = f"{action_words(action, incident.actions)}{where}"
        ended = f"{ending(action)}: {action.outcome_message}" if action.outcome else str(action.state)
        console.print(
            Text(f"{text} ({action.risk} risk): {in_words(action.decision)}; {printable(ended)}", style="dim")
        )


def _print_chain(console: Console, entries: int, broken_at: int | None, discrepancies: Sequence[str]) -> None:
    if broken_at is not None:
        console.print(
            Text(
                f"RECORD ALTERED: entry {broken_at} does not follow from those before it. "
                "Do not trust the entries from there on.",
                style="bold red",
            )
        )
    elif discrepancies:
        console.print(Text(f"RECORD ALTERED: {printable(discrepancies[0])}.", style="bold red"))
    else:
        console.print(
            Text(
                f"Record intact: the hash chain of {counted(entries, 'entry', 'entries')} holds.",
                style="green",
            )
        )
