"""The `heal` command: parses what a person typed, calls `app.commands`, and says what went wrong.

Modules are imported inside the commands, so that `heal --help` answers at once.
No expected error prints a traceback; each has an exit code, told by `--help`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from app.commands.doctor import Finding
    from app.config import Settings

T = TypeVar("T")

_PIPED_WIDTH = 160

EXIT_CODES = "Exit codes: 0 done, 1 it failed or something is wrong, 2 wrong usage, 130 interrupted."

app = typer.Typer(
    name="heal",
    help="Self-Healing DevOps Agent: finds, diagnoses and heals incidents on Kubernetes, safely.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runbooks_app = typer.Typer(
    help="The catalogue of approved runbooks.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(runbooks_app, name="runbooks")
policy_app = typer.Typer(
    help="The policies that are asked before every action.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(policy_app, name="policy")
brake_app = typer.Typer(
    help="The kill switch: while it is on, no worker begins a new action; undo and verification go on.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)
app.add_typer(brake_app, name="brake")
audit_app = typer.Typer(
    help="Proof that nothing was lost, and of what people decided.", no_args_is_help=True, epilog=EXIT_CODES
)
app.add_typer(audit_app, name="audit")
token_app = typer.Typer(
    help="API tokens: what programs and people prove with who they are.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)
app.add_typer(token_app, name="token")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of a running agent. Default: HOST and PORT; when none answers there, the SQLite file.",
    ),
]
Teller = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of a running agent. Default: HOST and PORT; when none answers there, the database.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Who says so; stands in the record. Default: whose HEAL_TOKEN it is, or the user of this shell.",
    ),
]
Comment = Annotated[str, typer.Option("--comment", help="A line for the record.")]
ApprovalIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The approval's id: apr_...")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, as the HTTP API answers it.")]


def main() -> None:
    """Entry point of the `heal` script."""
    from app.commands.failing import CommandFailed
    from app.errors import AgentError

    try:
        app()
    except (CommandFailed, AgentError) as error:
        _complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command(epilog=EXIT_CODES)
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one. Default: PORT."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(help="all, or on PostgreSQL: api, worker, watch. Default: ROLE."),
    ] = None,
) -> None:
    """Start the agent: API, dashboard, watcher, poller and driver in one process, or the part of one role."""
    import uvicorn

    # The application reads its settings itself, and guards by the address it believes to listen on.
    for name, value in (("HOST", host), ("PORT", port), ("ROLE", role)):
        if value is not None:
            os.environ[name] = str(value)
    settings = _settings()
    _run(_try_connections(settings))
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.listens_on,
        port=settings.port,
        log_level=settings.log_level,
    )


@app.command(epilog=EXIT_CODES)
def worker(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Take signals from kafka://host:9092/topic or redis://host:6379/0?stream=signals; may be "
            "repeated. Default: INTAKE_FROM.",
        ),
    ] = None,
) -> None:
    """Start a worker without HTTP: it moves incidents on, and takes signals from streams."""
    from app.commands.working import work

    os.environ["ROLE"] = "worker"
    if source:
        os.environ["INTAKE_FROM"] = " ".join(source)
    _run(work(_settings()))


async def _try_connections(settings: Settings) -> None:
    """Open everything once, so that a wrong setting is said in one line before the server starts."""
    from app.bootstrap import build

    await (await build(settings)).close()


@app.command(epilog=EXIT_CODES)
def demo(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only propose: the incident ends with what would be done.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Play on the simulated cluster, even when a test bed runs.")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Play the simulation without pauses for reading.")
    ] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Play on the cluster of KUBECONFIG, watched by PROMETHEUS_URL.")
    ] = False,
    service: Annotated[
        str | None, typer.Option(help="With --cluster: the service, as ENVIRONMENT/SERVICE.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="With --cluster: the bad image that the demo releases.")
    ] = None,
) -> None:
    """Play an incident from bad release to recovery.

    With a test bed up (`make testbed`) it plays on that real control plane. Otherwise it
    plays on a simulated cluster, in compressed time, with the real agent. The incident stays
    in DATABASE_URL's store.
    """
    from app.commands.demo import play_real, simulate
    from app.commands.live import TESTBED_ENV, cluster_story, testbed_story

    if cluster and (service is None or image is None):
        raise typer.BadParameter("needs --service and --image", param_hint="--cluster")
    settings = _settings()
    if cluster and service is not None and image is not None:
        _run(play_real(cluster_story(settings, service, image, dry_run=dry_run), _console()))
    elif TESTBED_ENV.is_file() and not simulated:
        _run(play_real(testbed_story(settings, TESTBED_ENV, dry_run=dry_run), _console()))
    else:
        _run(simulate(settings, _console(), dry_run=dry_run, fast=fast))


@app.command("incidents", epilog=EXIT_CODES)
def list_incidents(
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only in this environment.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, for example escalated.")] = None,
    since: Annotated[str | None, typer.Option(help="Opened since: an RFC 3339 time, or 30m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Opened before: likewise.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    from datetime import UTC, datetime

    from app.agent.models import IncidentState
    from app.commands import reading, terminal

    if state is not None and state not in set(IncidentState):
        raise typer.BadParameter(f"one of {', '.join(IncidentState)}", param_hint="--state")
    now = datetime.now(UTC)
    wanted = reading.Wanted(
        service=service,
        environment=environment,
        state=None if state is None else IncidentState(state),
        since=reading.moment(since, now, "--since"),
        until=reading.moment(until, now, "--until"),
        limit=limit,
    )
    page = _run(reading.list_incidents(_settings(), url, wanted))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    if not page.items:
        typer.echo("No incidents.")
        return
    terminal.print_table(_console(), page.items)
    if page.next is not None:
        typer.echo(f"There are more; --limit {limit} shows the newest {len(page.items)}.")


@app.command(epilog=EXIT_CODES)
def show(
    incident_id: Annotated[str, typer.Argument(metavar="ID", help="The incident's id: inc_...")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Tell one incident as a story, and check that its record was not altered (exit code 1 if it was)."""
    from app.commands import reading, terminal

    incident = _run(reading.load_incident(_settings(), url, incident_id))
    broken_at = reading.broken_entry(incident)
    if as_json:
        typer.echo(incident.model_dump_json(indent=2))
    else:
        terminal.print_story(_console(), incident, broken_at)
    if broken_at is not None:
        _complain(f"the record of {incident_id} was altered at entry {broken_at}")
        raise typer.Exit(1)


@app.command("approvals", epilog=EXIT_CODES)
def list_approvals(
    state: Annotated[
        str, typer.Option(help="pending, approved, denied, used, expired, void, or all.")
    ] = "pending",
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """List what people are asked, newest first; what waits for an answer, unless told otherwise."""
    from app.agent.models import ApprovalState
    from app.commands import people, terminal

    if state != "all" and state not in set(ApprovalState):
        raise typer.BadParameter(f"one of {', '.join(ApprovalState)}, all", param_hint="--state")
    wanted = None if state == "all" else ApprovalState(state)
    page = _run(people.list_approvals(_settings(), url, wanted, limit))
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
    elif not page.items:
        typer.echo("Nothing waits for an answer." if state == "pending" else "No approvals.")
    else:
        terminal.print_approvals(_console(), page.items)


@app.command(epilog=EXIT_CODES)
def approve(
    approval_id: ApprovalIdArgument,
    comment: Comment = "",
    by: By = None,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Say yes to an action that waits for it; it is decided anew on the live state, then done."""
    _answer(approval_id, approve=True, by=by, comment=comment, url=url, as_json=as_json)


@app.command(epilog=EXIT_CODES)
def deny(
    approval_id: ApprovalIdArgument,
    comment: Comment = "",
    by: By = None,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Say no to an action that waits for an approval; the incident goes to a person."""
    _answer(approval_id, approve=False, by=by, comment=comment, url=url, as_json=as_json)


def _answer(
    approval_id: str, *, approve: bool, by: str | None, comment: str, url: str | None, as_json: bool
) -> None:
    from app.commands import people, terminal

    settings = _settings()
    said = people.answer_of(approve=approve, by=by or _user(settings), comment=comment)
    view = _run(people.answer(settings, url, approval_id, said))
    typer.echo(view.model_dump_json(indent=2) if as_json else terminal.answer_line(view))


@brake_app.command("on", epilog=EXIT_CODES)
def brake_on(
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who find it on.")],
    by: By = None,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Stop every new action of every worker, at once."""
    _set_brake(engaged=True, by=by, reason=reason, url=url, as_json=as_json)


@brake_app.command("off", epilog=EXIT_CODES)
def brake_off(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    by: By = None,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Let actions begin again."""
    _set_brake(engaged=False, by=by, reason=reason, url=url, as_json=as_json)


@brake_app.command("show", epilog=EXIT_CODES)
def brake_show(url: Teller = None, as_json: AsJson = False) -> None:
    """Say what holds actions back: the kill switch, freeze windows, circuit breakers that are not closed."""
    from app.commands import people, terminal

    view = _run(people.brakes(_settings(), url))
    if as_json:
        typer.echo(view.model_dump_json(indent=2))
    else:
        for line in terminal.brake_lines(view):
            typer.echo(line)


@brake_app.command("close-circuit", epilog=EXIT_CODES)
def brake_close_circuit(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    service: Annotated[
        str | None,
        typer.Option("--service", help="Whose breaker, with --environment. Default: the cluster's."),
    ] = None,
    environment: Annotated[str | None, typer.Option("--environment", help="With --service.")] = None,
    by: By = None,
    url: Teller = None,
) -> None:
    """Close a circuit breaker before its time: what failed until now counts no more."""
    from app.commands import people

    settings = _settings()
    by = by or _user(settings)
    wanted = people.circuit_of(service=service, environment=environment, by=by, reason=reason)
    _run(people.close_circuit(settings, url, wanted))
    whose = f"{service} in {environment}" if service else "the cluster"
    typer.echo(f"The circuit breaker of {whose} is closed.")


def _set_brake(*, engaged: bool, by: str | None, reason: str, url: str | None, as_json: bool) -> None:
    from app.commands import people, terminal

    settings = _settings()
    wanted = people.brake_of(engaged=engaged, by=by or _user(settings), reason=reason)
    view = _run(people.set_brake(settings, url, wanted))
    typer.echo(view.model_dump_json(indent=2) if as_json else terminal.brake_line(view))


def _user(settings: Settings) -> str | None:
    """Who runs this, where their token does not say it."""
    from app.commands.failing import CommandFailed
    from app.commands.speaking import shell_user

    if settings.heal_token is not None:
        return None
    try:
        return shell_user()
    except CommandFailed as error:
        raise typer.BadParameter(str(error), param_hint="--by") from None


@app.command(epilog=EXIT_CODES)
def doctor(as_json: AsJson = False) -> None:
    """Check configuration, store, runbooks, cluster, rights, Prometheus and clocks; 1 if anything fails."""
    from app.commands.doctor import Status, configuration_findings, examine

    settings = _settings()
    first = configuration_findings(Path(".env"))

    async def all_findings() -> bool:
        failed = False
        findings = [first]
        if not as_json:
            _print_finding(first)
        async for finding in examine(settings):
            failed = failed or finding.status is Status.FAIL
            findings.append(finding)
            if not as_json:
                _print_finding(finding)
        if as_json:
            fields = ("check", "status", "message", "mend")
            typer.echo(json.dumps([{f: str(getattr(one, f)) for f in fields} for one in findings], indent=2))
        return failed

    if _run(all_findings()):
        raise typer.Exit(1)


@audit_app.command("signals", epilog=EXIT_CODES)
def audit_signals(
    since: Annotated[
        str | None, typer.Option(help="Count from that day on: an RFC 3339 time, or 7d. Default: all.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check every timeline and duplicate, in the database itself.")
    ] = False,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Count every accepted signal by what became of it, and name what is astray; 1 if it does not add up."""
    from datetime import UTC, datetime

    from app.commands import auditing, reading

    day = reading.moment(since, datetime.now(UTC), "--since")
    found = _run(auditing.audit(_settings(), url, day, deep=deep))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for line in auditing.lines(found):
            typer.echo(line)
    if not found.adds_up:
        _complain("the signals do not add up")
        raise typer.Exit(1)


@audit_app.command("people", epilog=EXIT_CODES)
def audit_people(
    limit: Annotated[int, typer.Option(min=0, help="Print the newest so many; 0 for all.")] = 20,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Print what people decided, and check the whole chain; 1 if an entry was altered or taken out."""
    from app.commands import auditing, terminal

    entries, broken_at = _run(auditing.people(_settings(), url))
    newest = entries[-limit:] if limit else entries
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in newest], indent=2))
    else:
        for one in newest:
            typer.echo(terminal.printable(auditing.decision_line(one)))
        typer.echo(f"{len(entries)} decisions on record.")
    if broken_at is not None:
        _complain(f"the audit trail of people was altered at entry {broken_at}")
        raise typer.Exit(1)


@token_app.command("create", epilog=EXIT_CODES)
def token_create(
    name: Annotated[str, typer.Argument(help="Whose it is: a person, or a program such as a pipeline.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="ingest, read, approve, operate or admin; may be repeated.")
    ],
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="A role that approvals may ask for, such as sre; may be repeated."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="How long it holds. Default: until it is revoked.")
    ] = None,
    url: Teller = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it: this once, for only its hash is kept.

    With HEAL_TOKEN a running agent is asked. Without one it is written to the database, which
    is how the first one is made; on SQLite the agent must not run meanwhile.
    """
    from app.commands import tokens

    wanted = tokens.token_of(name=name, scopes=scope, roles=role or [], days=days)
    made = _run(tokens.create(_settings(), url, wanted))
    typer.echo(made.model_dump_json(indent=2) if as_json else made.token)


@token_app.command("list", epilog=EXIT_CODES)
def token_list(url: Teller = None, as_json: AsJson = False) -> None:
    """List the tokens, newest first; never what proves them."""
    from app.commands import terminal, tokens

    found = _run(tokens.list_tokens(_settings(), url))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    for one in found.items:
        typer.echo(terminal.printable(tokens.line(one)))
    if not found.items:
        typer.echo("No tokens.")


@token_app.command("revoke", epilog=EXIT_CODES)
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id: tok_...")],
    url: Teller = None,
) -> None:
    """Make a token good for nothing, on every process, from now on."""
    from app.commands import terminal, tokens

    typer.echo(terminal.printable(tokens.line(_run(tokens.revoke(_settings(), url, token_id)))))


@runbooks_app.command("check", epilog=EXIT_CODES)
def check_runbooks(
    path: Annotated[Path | None, typer.Argument(help="Folder of runbooks. Default: RUNBOOKS_DIR.")] = None,
) -> None:
    """Validate every runbook of a folder; the first mistake is told with file and line."""
    from app.agent.runbooks import load_catalogue

    folder = path or _settings().runbooks_dir
    catalogue = load_catalogue(folder)
    for runbook in catalogue.runbooks:
        steps = ", then ".join(step.action for step in runbook.steps)
        typer.echo(f"ok  {runbook.reference:<36} {runbook.hash[:12]}  {steps}")
    typer.echo(f"{len(catalogue.runbooks)} runbooks in {folder} are valid; catalogue {catalogue.hash[:12]}.")


PolicyFolder = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="Folder of policies. Default: POLICY_DIR, or the shipped ones."),
]


@policy_app.command("check", epilog=EXIT_CODES)
def check_policies(path: PolicyFolder = None) -> None:
    """Compile the policies of a folder; every mistake is told with file and line."""
    from app.commands import policy

    typer.echo(policy.check(path or policy.policy_folder(_settings())))


@policy_app.command("test", epilog=EXIT_CODES)
def run_policy_tests(path: PolicyFolder = None) -> None:
    """Run the tests of a folder of policies: the rules named test_... (exit code 1 if one fails)."""
    from app.commands import policy

    lines, failed = policy.test(path or policy.policy_folder(_settings()))
    for line in lines:
        typer.echo(line)
    if failed:
        raise typer.Exit(1)


@policy_app.command("explain", epilog=EXIT_CODES)
def explain_policy(
    incident_id: Annotated[str, typer.Argument(metavar="INCIDENT", help="The incident's id: inc_...")],
    url: Url = None,
) -> None:
    """Tell for each action of an incident what was decided, why, and by which rule."""
    from app.commands import policy, reading, terminal

    incident = _run(reading.load_incident(_settings(), url, incident_id))
    for line in policy.explain(incident):
        typer.echo(terminal.printable(line))


def _settings() -> Settings:
    """The settings, or a message that names each wrong one."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.commands.failing import CommandFailed
    from app.config import Settings

    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        ]
        raise CommandFailed("the configuration is not valid:\n  " + "\n  ".join(lines)) from error
    except SettingsError as error:
        raise CommandFailed(f"the configuration is not valid: {error}") from error


def _console() -> Console:
    from rich.console import Console

    piped = not sys.stdout.isatty()
    return Console(highlight=False, width=_PIPED_WIDTH if piped and "COLUMNS" not in os.environ else None)


def _print_finding(finding: Finding) -> None:
    from rich.text import Text

    from app.commands.terminal import printable

    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.status]
    line = Text.assemble((f"{finding.status:<5}", style), (f"{finding.check}: ", "bold"))
    line.append(printable(finding.message))
    if finding.mend:
        line.append(f"\n      Mend: {printable(finding.mend)}.", style="dim")
    _console().print(line, soft_wrap=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(work)


def _complain(message: str) -> None:
    typer.secho(f"heal: {message}", fg=typer.colors.RED, err=True)
