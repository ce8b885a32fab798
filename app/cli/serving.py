"""Serves the agent, or the sandbox in its place, until it is stopped."""

from __future__ import annotations

import errno
import math
import os
import socket

import typer

from app.cli.options import console, finished
from app.config import Settings


def serve(settings: Settings, *, elsewhere: bool = False) -> None:
    """Check the settings once, then serve; the application reads them itself.

    `elsewhere`: the port is not the one that other commands read from the settings. One from
    the environment of this terminal is not known to another either.
    """
    import uvicorn

    from app.api.admission import DRAIN_SECONDS
    from app.api.intake_door.protocol import door_protocol
    from app.logs import JSON_LINES, show_log

    if settings.sandbox:
        from app.simulation.sandbox import check_sandbox, sandbox_settings

        settings = sandbox_settings(settings)
        _check_port(settings)
        finished(check_sandbox(settings))
        _announce(settings, elsewhere=elsewhere)
    else:
        _check_port(settings)
        finished(_try_connections(settings))
    as_json = settings.log_format == JSON_LINES
    if as_json:  # from the first line on; the server's own configuration would print text
        show_log(settings.log_level, settings.log_format)
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.listens_on,
        port=settings.port,
        log_level="warning" if settings.sandbox and settings.log_level == "info" else settings.log_level,
        log_config=None if as_json else uvicorn.config.LOGGING_CONFIG,
        http=door_protocol(settings.max_connections),
        timeout_graceful_shutdown=math.ceil(DRAIN_SECONDS),
    )


def _check_port(settings: Settings) -> None:
    """Report a port that is in use before anything starts; every other fault is left to the server."""
    from app.cli.commands.errors import CommandFailed

    host, port = settings.listens_on, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandFailed(
                f"port {port} of {host} is in use: stop the process that listens there, "
                "or choose another port with PORT or --port"
            ) from error


async def _try_connections(settings: Settings) -> None:
    """Open all connections once, to report a wrong setting in one line before the server starts."""
    from app.bootstrap import build
    from app.cli.commands.incidents import sqlite_path
    from app.store.fleet import only_process

    container = await build(settings)
    try:
        if (path := sqlite_path(settings)) is not None:
            only_process(path).close()
    finally:
        await container.close()


def _announce(settings: Settings, *, elsewhere: bool) -> None:
    """Print where the sandbox is and what to do there, after what can be wrong is checked."""
    from rich.panel import Panel
    from rich.text import Text

    from app.cli.commands.agent_client import default_url
    from app.sandbox.scenarios.playground import offered

    first = offered(settings.sandbox_scenarios)[0].scenario.id
    base = default_url(settings)
    where = f"{base}/sandbox"
    option = f" --url {base}" if elsewhere or "PORT" in os.environ else ""
    text = Text.assemble(
        ("SANDBOX", "bold yellow"),
        ": the cluster, its traffic and its time are simulated; the agent is the real one.\n",
        "No real cluster, metric source, chat or stream is connected.\n\n",
        ("1. Open ", ""),
        (where, "bold"),
        f"\n2. Start a scenario, such as {first}.\n",
        "3. Open its incident, and approve the rollback. No sign-in is needed on this machine:\n",
        "   the form asks for your name, and the record keeps it.\n\n",
        f"From another terminal: heal sandbox start {first}{option}\n",
        f"Time passes {settings.sandbox_speed:g} times as fast; Ctrl-C stops the sandbox.",
    )
    console().print(Panel(text, title="heal sandbox", border_style="yellow"), soft_wrap=False)
    typer.echo("")
