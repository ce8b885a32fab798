"""`heal runbooks` and `heal policy`: checks of runbooks and policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.agent.evidence.format import counted
from app.cli.options import (
    EXIT_CODES,
    Url,
    finished,
    read_settings,
)

app = typer.Typer()
runbooks_app = typer.Typer(
    help="The catalogue of approved runbooks.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(runbooks_app, name="runbooks")
app.add_typer(runbooks_app, name="runbooks")
policy_app = typer.Typer(
    help="The policies that decide on every action.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(policy_app, name="policy")


@runbooks_app.command("check", epilog=EXIT_CODES)
def check_runbooks(
    path: Annotated[Path | None, typer.Argument(help="Folder of runbooks. Default: RUNBOOKS_DIR.")] = None,
) -> None:
    """Validate every runbook of a folder; reports the first error with file and line."""
    from app.agent.runbooks import load_catalogue

    folder = path or read_settings().runbooks_folder
    catalogue = load_catalogue(folder)
    for runbook in catalogue.runbooks:
        steps = ", then ".join(step.action for step in runbook.steps)
        typer.echo(f"ok  {runbook.reference:<36} {runbook.hash[:12]}  {steps}")
    typer.echo(
        f"Valid: {counted(len(catalogue.runbooks), 'runbook')} in {folder}; catalogue {catalogue.hash[:12]}."
    )


PolicyFolder = Annotated[
    Path | None,
    typer.Argument(
        metavar="DIR", help="Folder of policies. Default: POLICY_DIR, or the policies of the package."
    ),
]


@policy_app.command("check", epilog=EXIT_CODES)
def check_policies(path: PolicyFolder = None) -> None:
    """Compile the policies of a folder; reports every error with file and line."""
    from app.cli.commands import policy

    typer.echo(policy.check(path or policy.policy_folder(read_settings())))


@policy_app.command("test", epilog=EXIT_CODES)
def run_policy_tests(path: PolicyFolder = None) -> None:
    """Run the tests of a folder of policies: the rules named test_... (exit code 1 if one fails)."""
    from app.cli.commands import policy

    lines, failed = policy.test(path or policy.policy_folder(read_settings()))
    for line in lines:
        typer.echo(line)
    if failed:
        raise typer.Exit(1)


@policy_app.command("explain", epilog=EXIT_CODES)
def explain_policy(
    incident_id: Annotated[str, typer.Argument(metavar="INCIDENT", help="The incident's id: inc_...")],
    url: Url = None,
) -> None:
    """Show for each action of an incident the decision, the reasons and the rules."""
    from app.cli.commands import incidents, output, policy

    incident = finished(incidents.load_incident(read_settings(), url, incident_id))
    for line in policy.explain(incident):
        typer.echo(output.printable(line))
