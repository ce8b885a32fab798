"""`heal token`: API tokens for programs and people."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    StoryListener,
    finished,
    read_settings,
)

app = typer.Typer(
    help="API tokens for programs and people.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)


@app.command("create", epilog=EXIT_CODES)
def token_create(
    name: Annotated[str, typer.Argument(help="Holder: a person, or a program such as a pipeline.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="ingest, read, approve, operate or admin; may be repeated.")
    ],
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="A role for approvals, such as sre; may be repeated."),
    ] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option(
            "--environment", help="An environment that it may report for; may be repeated. Default: all."
        ),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="A service that it may report for; may be repeated. Default: all."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="Lifetime in days. Default: until it is revoked.")
    ] = None,
    recover: Annotated[
        bool,
        typer.Option(
            "--recover",
            help="Write to the database without HEAL_TOKEN, after the loss of every administrator token; "
            "recorded in the audit trail with the user of the operating system.",
        ),
    ] = False,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Create a token and print it once; only its hash is stored.

    With HEAL_TOKEN, a running agent creates the token. Without HEAL_TOKEN, the command
    writes the token to the database of DATABASE_URL while no administrator token exists;
    this creates the first token.
    """
    from app.cli.commands import tokens

    wanted = tokens.token_of(
        name=name, scopes=scope, roles=role or [], days=days, environments=environment, services=service
    )
    made = finished(tokens.create(read_settings(), url, wanted, recover=recover))
    typer.echo(made.model_dump_json(indent=2) if as_json else made.token)


@app.command("list", epilog=EXIT_CODES)
def token_list(url: StoryListener = None, as_json: AsJson = False) -> None:
    """List the tokens, newest first, without their secrets."""
    from app.cli.commands import output, tokens

    found = finished(tokens.list_tokens(read_settings(), url))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    for one in found.items:
        typer.echo(output.printable(tokens.line(one)))
    if not found.items:
        typer.echo("No tokens.")


@app.command("revoke", epilog=EXIT_CODES)
def token_revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a token, tok_..., or of a session, ses_...")
    ],
    url: StoryListener = None,
) -> None:
    """Revoke a token, or a session listed by `heal audit people`, on every process."""
    from app.cli.commands import output, tokens

    typer.echo(output.printable(tokens.line(finished(tokens.revoke(read_settings(), url, token_id)))))
