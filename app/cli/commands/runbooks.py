"""`heal runbooks list` and `show`: the catalogue."""

from __future__ import annotations

from rich.table import Table

from app.agent.evidence.format import in_words
from app.agent.runbooks import Catalogue
from app.cli.commands.errors import CommandFailed
from app.cli.commands.output import printable
from app.wire.catalogues import RunbookView


def one_of(catalogue: Catalogue, name: str) -> RunbookView:
    """The runbook of that id; raises `CommandFailed` that lists the ids."""
    found = next((one for one in catalogue.runbooks if name in (one.id, one.reference)), None)
    if found is None:
        known = ", ".join(one.id for one in catalogue.runbooks)
        raise CommandFailed(f"there is no runbook {name!r}; the catalogue has {known}")
    return RunbookView.of(found)


def table(runbooks: list[RunbookView], *, wide: bool) -> Table:
    """One runbook a row."""
    found = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("RUNBOOK", "CAUSES", "STEPS", *(("MIN CONFIDENCE", "HASH", "TITLE") if wide else ())):
        found.add_column(heading, overflow="fold")
    for one in runbooks:
        more = (f"{one.min_confidence:g}", one.hash[:12], printable(one.title)) if wide else ()
        causes = ", ".join(in_words(cause) for cause in one.causes)
        steps = ", then ".join(in_words(step.action) for step in one.steps) or "escalate"
        found.add_row(f"{one.id}@{one.version}", causes, steps, *more)
    return found


def lines(runbook: RunbookView) -> list[str]:
    """The runbook in full."""
    return [
        f"{runbook.id}@{runbook.version}: {printable(runbook.title)}",
        f"causes          {', '.join(in_words(cause) for cause in runbook.causes)}",
        f"min confidence  {runbook.min_confidence:g}",
        *(
            f"step {number}          {in_words(step.action)}"
            + "".join(f" {name}={value}" for name, value in step.parameters.items())
            for number, step in enumerate(runbook.steps, start=1)
        ),
        *(f"escalate        {printable(line)}" for line in runbook.escalate),
        *(
            f"{what:<15} {', '.join(printable(one) for one in limited)}"
            for what, limited in (
                ("environments", runbook.environments),
                ("services", runbook.services),
                ("kinds", runbook.kinds),
            )
            if limited
        ),
        f"hash            {runbook.hash}",
        f"file            {printable(runbook.source)}",
    ]
