"""`heal runbooks`, `heal policy` and `heal services`: the catalogues."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.agent.evidence.format import counted
from app.cli.options import (
    EXIT_CODES,
    Output,
    OutputOption,
    Url,
    console,
    finished,
    print_error,
    read_settings,
    structured,
)

app = typer.Typer()
runbooks_app = typer.Typer(
    help="The catalogue of approved runbooks.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(runbooks_app, name="runbooks")
services_app = typer.Typer(
    help="Services on record, and settings of single services.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(services_app, name="services")
policy_app = typer.Typer(
    help="The policies that decide on every action.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(policy_app, name="policy")


@services_app.command("list", epilog=EXIT_CODES)
def list_services(
    environment: Annotated[str | None, typer.Option(help="Only in this environment.")] = None,
    search: Annotated[str, typer.Option("--search", help="Part of the name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number to show.")] = 100,
    url: Url = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the services on record, with the newest incident of each."""
    from app.cli.commands import service_list

    page = finished(
        service_list.services(read_settings(), url, environment=environment, search=search, limit=limit)
    )
    text = structured(page, output)
    if text is not None:
        typer.echo(text)
        return
    if not page.items:
        typer.echo("No services.")
        return
    console(wide=output is Output.WIDE).print(service_list.table(page))
    if page.next is not None:
        typer.echo(f"Showing the first {len(page.items)}; raise --limit to show more.")


@services_app.command("check", epilog=EXIT_CODES)
def check_services(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: SERVICES_FILE.")] = None,
) -> None:
    """Validate the services file; reports the first error with file and line."""
    from app.settings.services import read_services, terms_in_words

    path = file or read_settings().services_file
    if path is None:
        print_error("no file: name one, or set SERVICES_FILE")
        raise typer.Exit(2)
    found = read_services(path)
    for terms in found.values():
        typer.echo(f"ok  {terms.key.environment}/{terms.key.service:<28} {terms_in_words(terms)}")
    typer.echo(f"Valid: {counted(len(found), 'service')} in {path}.")


@runbooks_app.command("check", epilog=EXIT_CODES)
def check_runbooks(
    path: Annotated[Path | None, typer.Argument(help="Folder of runbooks. Default: RUNBOOKS_DIR.")] = None,
) -> None:
    """Validate every runbook of a folder and test its examples; reports the first error with its place."""
    from app.agent.runbooks import load_catalogue

    folder = path or read_settings().runbooks_folder
    catalogue = load_catalogue(folder)
    for runbook in catalogue.runbooks:
        steps = ", then ".join(step.action for step in runbook.steps) or "escalate"
        typer.echo(f"ok  {runbook.reference:<36} {runbook.hash[:12]}  {steps}")
    typer.echo(
        f"Valid: {counted(len(catalogue.runbooks), 'runbook')} in {folder}, "
        f"{counted(catalogue.check_examples(), 'example')} tested; catalogue {catalogue.hash[:12]}."
    )


RunbookFolder = Annotated[
    Path | None, typer.Option("--runbooks", help="Folder of runbooks. Default: RUNBOOKS_DIR.")
]


@runbooks_app.command("list", epilog=EXIT_CODES)
def list_runbooks(folder: RunbookFolder = None, output: OutputOption = Output.TABLE) -> None:
    """List the approved runbooks with their causes and steps."""
    from app.agent.runbooks import load_catalogue
    from app.cli.commands import runbooks
    from app.wire.catalogues import RunbookView

    catalogue = load_catalogue(folder or read_settings().runbooks_folder)
    found = [RunbookView.of(one) for one in catalogue.runbooks]
    text = structured(found, output)
    if text is not None:
        typer.echo(text)
    else:
        wide = output is Output.WIDE
        console(wide=wide).print(runbooks.table(found, wide=wide))


@runbooks_app.command("show", epilog=EXIT_CODES)
def show_runbook(
    name: Annotated[str, typer.Argument(metavar="RUNBOOK", help="Its id, such as roll-back-bad-release.")],
    folder: RunbookFolder = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one runbook: causes, steps, hash and file."""
    from app.agent.runbooks import load_catalogue
    from app.cli.commands import runbooks

    found = runbooks.one_of(load_catalogue(folder or read_settings().runbooks_folder), name)
    text = structured(found, output)
    typer.echo("\n".join(runbooks.lines(found)) if text is None else text)


@runbooks_app.command("simulate", epilog=EXIT_CODES)
def simulate_runbooks(
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Scenarios of the sandbox, or files. Default: all."),
    ] = None,
    *,
    folder: RunbookFolder = None,
    policies: Annotated[
        Path | None, typer.Option("--policies", help="Folder of policies. Default: POLICY_DIR.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print one line for each scenario.")] = False,
) -> None:
    """Play simulated faults with these runbooks and policies; 1 if one does not end as its file says.

    Nothing outside this process is touched. A person who is asked answers as the file says.
    """
    from app.cli.commands import output, simulation

    settings = read_settings()
    given = {"runbooks_dir": folder, "policy_dir": policies}
    settings = settings.model_copy(update={name: path for name, path in given.items() if path is not None})
    ended = finished(simulation.simulate(settings, simulation.scenarios(settings, wanted or [])))
    for one in ended:
        for record in one.records if not quiet else ():
            story = output.StoryPrinter(console(), record.incident.opened_at)
            for entry in record.timeline:
                story.line(entry)
            story.flush()
            typer.echo("")
        typer.echo(simulation.verdict(one))
    if any(not one.judgement.right for one in ended):
        raise typer.Exit(1)


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


@policy_app.command("eval", epilog=EXIT_CODES)
def evaluate_policy(
    document: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A policy input as a JSON file; - reads standard input.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--policies", help="Folder of policies. Default: POLICY_DIR.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Decide on one policy input, with the reasons and the rules; nothing is carried out.

    The input is described by docs/policy-input.schema.json. The built-in guardrails are not applied.
    """
    from app.cli.commands import policy

    found = finished(policy.evaluate(read_settings(), folder, document))
    text = structured(found, output)
    typer.echo("\n".join(policy.decided(found)) if text is None else text)


@policy_app.command("explain", epilog=EXIT_CODES)
def explain_policy(
    incident_id: Annotated[str, typer.Argument(metavar="INCIDENT", help="The incident's id: inc_...")],
    url: Url = None,
) -> None:
    """Show for each action of an incident the decision, the reasons and the rules."""
    from app.cli.commands import output, policy
    from app.cli.commands.short_ids import load_by_beginning

    incident = finished(load_by_beginning(read_settings(), url, incident_id))
    for line in policy.explain(incident):
        typer.echo(output.printable(line))
