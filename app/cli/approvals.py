"""`heal approvals`, `approve`, `deny` and `brake`: decisions of people."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    By,
    Output,
    OutputOption,
    StoryListener,
    console,
    finished,
    read_settings,
    structured,
    user_of,
)

app = typer.Typer()
brake_app = typer.Typer(
    help="Guardrails: the kill switch, freeze windows and circuit breakers. Without a command: show them.",
    invoke_without_command=True,
    epilog=EXIT_CODES,
)
app.add_typer(brake_app, name="brake")

Comment = Annotated[str, typer.Option("--comment", help="Comment for the record.")]
ApprovalIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The approval's id, or its first four characters or more.")
]


@app.command("approvals", epilog=EXIT_CODES)
def list_approvals(
    state: Annotated[
        str, typer.Option(help="pending, approved, denied, used, expired, void, or all.")
    ] = "pending",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Maximum number to show.")] = 50,
    url: StoryListener = None,
    output_as: OutputOption = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List approvals, newest first; by default those that are pending."""
    from app.agent.models import ApprovalState
    from app.cli.commands import approvals, output

    if state != "all" and state not in set(ApprovalState):
        raise typer.BadParameter(f"one of {', '.join(ApprovalState)}, all", param_hint="--state")
    wanted = None if state == "all" else ApprovalState(state)
    page = finished(approvals.list_approvals(read_settings(), url, wanted, limit))
    text = structured(page, output_as, as_json=as_json)
    if text is not None:
        typer.echo(text)
    elif not page.items:
        typer.echo("No approval is pending." if state == "pending" else "No approvals.")
    else:
        output.print_approvals(console(), page.items)


@app.command(epilog=EXIT_CODES)
def approve(
    approval_id: ApprovalIdArgument,
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Approve an action. Policy evaluates it again on the live state before it runs."""
    _answer(approval_id, approve=True, by=by, comment=comment, url=url, as_json=as_json)


@app.command(epilog=EXIT_CODES)
def deny(
    approval_id: ApprovalIdArgument,
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Deny an action. The plan continues without it, or the incident is escalated."""
    _answer(approval_id, approve=False, by=by, comment=comment, url=url, as_json=as_json)


def _answer(
    approval_id: str, *, approve: bool, by: str | None, comment: str, url: str | None, as_json: bool
) -> None:
    from app.cli.commands import approvals, output
    from app.cli.commands.short_ids import answer_by_beginning

    settings = read_settings()
    said = approvals.answer_of(approve=approve, by=by or user_of(settings), comment=comment)
    view = finished(answer_by_beginning(settings, url, approval_id, said))
    typer.echo(view.model_dump_json(indent=2) if as_json else output.answer_line(view))


@brake_app.callback()
def brake(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        brake_show()


@brake_app.command("on", epilog=EXIT_CODES)
def brake_on(
    reason: Annotated[str, typer.Option("--reason", help="Reason for the record.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Engage the kill switch: no worker starts a new action. Undo and verification continue."""
    _set_brake(engaged=True, by=by, reason=reason, url=url, as_json=as_json)


@brake_app.command("off", epilog=EXIT_CODES)
def brake_off(
    reason: Annotated[str, typer.Option("--reason", help="Reason for the record.")] = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Release the kill switch: new actions may start."""
    _set_brake(engaged=False, by=by, reason=reason, url=url, as_json=as_json)


@brake_app.command("show", epilog=EXIT_CODES)
def brake_show(url: StoryListener = None, as_json: AsJson = False) -> None:
    """Show the kill switch, freeze windows and circuit breakers that are not closed."""
    from app.cli.commands import approvals, output

    view = finished(approvals.brakes(read_settings(), url))
    if as_json:
        typer.echo(view.model_dump_json(indent=2))
    else:
        for line in output.brake_lines(view):
            typer.echo(line)


@brake_app.command("close-circuit", epilog=EXIT_CODES)
def brake_close_circuit(
    reason: Annotated[str, typer.Option("--reason", help="Reason for the record.")],
    service: Annotated[
        str | None,
        typer.Option("--service", help="Service of the breaker, with --environment. Default: the cluster."),
    ] = None,
    environment: Annotated[str | None, typer.Option("--environment", help="With --service.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="One of CLUSTERS. Default: the cluster without a name.")
    ] = None,
    by: By = None,
    url: StoryListener = None,
) -> None:
    """Close a circuit breaker early: earlier failures no longer count."""
    from app.agent.guardrails.status import circuit_in_words
    from app.cli.commands import approvals

    settings = read_settings()
    by = by or user_of(settings)
    wanted = approvals.circuit_of(
        service=service, environment=environment, cluster=cluster, by=by, reason=reason
    )
    finished(approvals.close_circuit(settings, url, wanted))
    whose = circuit_in_words(wanted.key)
    typer.echo(f"Circuit breaker of {whose} closed: failures until now no longer count.")


def _set_brake(*, engaged: bool, by: str | None, reason: str, url: str | None, as_json: bool) -> None:
    from app.cli.commands import approvals, output

    settings = read_settings()
    wanted = approvals.brake_of(engaged=engaged, by=by or user_of(settings), reason=reason)
    view = finished(approvals.set_brake(settings, url, wanted))
    typer.echo(view.model_dump_json(indent=2) if as_json else output.brake_line(view))
