"""`heal runbooks list` and `show`: the catalogue."""

from __future__ import annotations

from pydantic import BaseModel, Field
from rich.table import Table

from app.agent.evidence.format import in_words
from app.agent.models import ActionName, Cause
from app.agent.runbooks import Catalogue, Runbook
from app.cli.commands.errors import CommandFailed
from app.cli.commands.output import printable


class StepDetails(BaseModel):
    """One action of a runbook."""

    action: ActionName
    parameters: dict[str, str | int | float | bool | None]


class RunbookDetails(BaseModel):
    """One approved runbook."""

    id: str
    version: int
    title: str
    causes: list[Cause]
    min_confidence: float = Field(description="The runbook is not chosen below it.")
    steps: list[StepDetails]
    escalate: list[str] = Field(description="Instructions for a person, in place of steps.")
    environments: list[str] = Field(description="Where it applies; empty: everywhere.")
    services: list[str] = Field(description="For which services; empty: all.")
    kinds: list[str] = Field(description="For which kinds of workloads; empty: all.")
    hash: str
    source: str = Field(description="The file.")

    @classmethod
    def of(cls, runbook: Runbook) -> RunbookDetails:
        return cls(
            id=runbook.id,
            version=runbook.version,
            title=runbook.title,
            causes=list(runbook.causes),
            min_confidence=runbook.min_confidence,
            steps=[StepDetails(action=s.action, parameters=dict(s.parameters)) for s in runbook.steps],
            escalate=list(runbook.escalate),
            environments=list(runbook.scope.environments),
            services=list(runbook.scope.services),
            kinds=list(runbook.scope.kinds),
            hash=runbook.hash,
            source=runbook.source,
        )


def one_of(catalogue: Catalogue, name: str) -> RunbookDetails:
    """The runbook of that id; raises `CommandFailed` that lists the ids."""
    found = next((one for one in catalogue.runbooks if name in (one.id, one.reference)), None)
    if found is None:
        known = ", ".join(one.id for one in catalogue.runbooks)
        raise CommandFailed(f"there is no runbook {name!r}; the catalogue has {known}")
    return RunbookDetails.of(found)


def table(runbooks: list[RunbookDetails], *, wide: bool) -> Table:
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


def lines(runbook: RunbookDetails) -> list[str]:
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
