"""`heal run`, `worker`, `demo` and `doctor`: start the agent, demonstrate it, and check its setup."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    console,
    finished,
    read_settings,
)

if TYPE_CHECKING:
    from app.connectors.findings import Finding

app = typer.Typer()


@app.command(epilog=EXIT_CODES)
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 selects a free one. Default: PORT."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(help="all, or on PostgreSQL: api, worker, watch. Default: ROLE."),
    ] = None,
) -> None:
    """Start the agent: API, dashboard, watcher, poller and driver, or the parts of one role.

    With SANDBOX=true it starts the sandbox instead, as `heal sandbox` does.
    """
    from app.cli.serving import serve

    # The application reads its settings itself, and guards by the address it believes to listen on.
    for name, value in (("HOST", host), ("PORT", port), ("ROLE", role)):
        if value is not None:
            os.environ[name] = str(value)
    serve(read_settings())


@app.command(epilog=EXIT_CODES)
def worker(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Read signals from a stream, an address as in INTAKE_FROM; may be "
            "repeated. Default: INTAKE_FROM.",
        ),
    ] = None,
) -> None:
    """Start a worker without HTTP: it processes incidents and reads signals from streams."""
    from app.cli.commands.worker import work

    os.environ["ROLE"] = "worker"
    if source:
        os.environ["INTAKE_FROM"] = " ".join(source)
    finished(work(read_settings()))


@app.command(epilog=EXIT_CODES)
def demo(
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only propose actions; write nothing."),
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Use the simulated cluster, even when a test bed runs.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Run the simulation without pauses.")] = False,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Use the configured cluster and metric source."),
    ] = False,
    service: Annotated[
        str | None, typer.Option(help="With --cluster: the service, as ENVIRONMENT/SERVICE.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="With --cluster: the bad image that the demo releases.")
    ] = None,
) -> None:
    """Demonstrate an incident from bad release to recovery.

    With a running test bed (`make testbed`), the demo uses its real control plane. Otherwise it
    uses a simulated cluster, in compressed time, with the real agent. The incident is stored
    in the database of DATABASE_URL.
    """
    from app.cli.commands.demo import play_real, simulate
    from app.cli.commands.demo_live import TESTBED_ENV, cluster_story, testbed_story

    if cluster and (service is None or image is None):
        raise typer.BadParameter("needs --service and --image", param_hint="--cluster")
    settings = read_settings()
    if cluster and service is not None and image is not None:
        finished(play_real(cluster_story(settings, service, image, dry_run=dry_run), console()))
    elif TESTBED_ENV.is_file() and not simulated:
        finished(play_real(testbed_story(settings, TESTBED_ENV, dry_run=dry_run), console()))
    else:
        finished(simulate(settings, console(), dry_run=dry_run, fast=fast))


@app.command(epilog=EXIT_CODES)
def doctor(as_json: AsJson = False) -> None:
    """Check configuration, store, cluster, permissions, metrics, clocks and more; 1 if a check fails."""
    from app.cli.commands.doctor import configuration_findings, examine
    from app.connectors.findings import Status

    settings = read_settings()
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
            typer.echo(json.dumps([_finding_as_json(one) for one in findings], indent=2))
        return failed

    if finished(all_findings()):
        raise typer.Exit(1)


def _finding_as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "status": finding.status.value,
        "message": finding.message,
        "fix": finding.fix,
        "mend": finding.fix,  # deprecated: the same text for one release
    }


def _print_finding(finding: Finding) -> None:
    from rich.text import Text

    from app.cli.commands.output import printable

    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.status]
    line = Text.assemble((f"{finding.status:<5}", style), (f"{finding.check}: ", "bold"))
    line.append(printable(finding.message))
    if finding.fix:
        line.append(f"\n      Fix: {printable(finding.fix)}.", style="dim")
    console().print(line, soft_wrap=True)
