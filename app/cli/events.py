"""`heal events send`: report a deploy or a metric sample, as a pipeline or a monitoring would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import EXIT_CODES, Output, OutputOption, finished, read_settings, structured

if TYPE_CHECKING:
    from app.cli.commands.events import Event

app = typer.Typer(help="Events of pipelines and monitoring.", no_args_is_help=True, epilog=EXIT_CODES)
send_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
app.add_typer(send_app, name="send", help="Post one event to a running agent.")

Service = Annotated[str, typer.Option("--service", "-s", help="The service it is about.")]
Environment = Annotated[str, typer.Option("--environment", "-e", help="The environment of the service.")]
At = Annotated[str | None, typer.Option("--at", help="When it happened, RFC 3339. Default: now.")]
Agent = Annotated[
    str | None, typer.Option("--url", help="Address of a running agent. Default: HOST and PORT.")
]


@send_app.command("deploy", epilog=EXIT_CODES)
def send_deploy(
    service: Service,
    environment: Environment,
    version: Annotated[str, typer.Option(help="The version that is released.")],
    *,
    status: Annotated[str, typer.Option(help="started, succeeded, failed or cancelled.")] = "started",
    commit: Annotated[str | None, typer.Option(help="The commit of the version.")] = None,
    irreversible: Annotated[
        bool, typer.Option("--irreversible", help="Older code cannot run against its changes.")
    ] = False,
    at: At = None,
    url: Agent = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Report that a release of a service changed state."""
    from app.cli.commands.events import event_of
    from app.wire.events import DeployEvent

    fields = {
        "service": service,
        "environment": environment,
        "version": version,
        "status": status,
        "commit_sha": commit,
        "irreversible": irreversible,
        "timestamp": at,
    }
    _send(event_of(DeployEvent, fields), url, output)


@send_app.command("metric", epilog=EXIT_CODES)
def send_metric(
    service: Service,
    environment: Environment,
    *,
    error_rate: Annotated[float | None, typer.Option(help="Share of failed requests, 0 to 1.")] = None,
    p95: Annotated[
        float | None, typer.Option("--p95-latency-ms", help="p95 latency in milliseconds.")
    ] = None,
    crash_looping: Annotated[
        bool | None, typer.Option("--crash-looping/--no-crash-looping", help="Whether pods crash repeatedly.")
    ] = None,
    at: At = None,
    url: Agent = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Report the service levels of one instant; what is not known is left out."""
    from app.cli.commands.events import event_of
    from app.wire.events import MetricEvent

    fields = {
        "service": service,
        "environment": environment,
        "error_rate": error_rate,
        "p95_latency_ms": p95,
        "crash_looping": crash_looping,
        "timestamp": at,
    }
    _send(event_of(MetricEvent, fields), url, output)


def _send(event: Event, url: str | None, output: Output) -> None:
    from app.agent.evidence.format import in_words
    from app.cli.commands.events import send
    from app.cli.commands.output import printable

    view = finished(send(read_settings(), url, event))
    text = structured(view, output)
    if text is None:
        reason = f": {view.reason}" if view.reason else ""
        about = f" {view.incident_id}" if view.incident_id else ""
        text = printable(f"{view.signal_id} {in_words(view.disposition)}{about}{reason}")
    typer.echo(text)
