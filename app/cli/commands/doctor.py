"""`heal doctor`: runs every check of the setup, without changing anything.

Each connector has its own checks, registered in `CHECKS`; those on the agent itself are
in `agent_checks`. Each finding has a fix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from app.cli.commands import agent_checks
from app.clock import SystemClock
from app.config import Settings
from app.connectors import checks, mappings
from app.connectors.findings import Check, DoctorRun, Finding, ok
from app.connectors.kubernetes import access as cluster
from app.connectors.policy import connect as policy
from app.connectors.registry import (
    ALERT_FORMATS,
    CHANNELS,
    GITOPS,
    LOG_SOURCES,
    METRIC_SOURCES,
    SILENCE_SOURCES,
)
from app.connectors.sso import issuer

CHECKS: tuple[Check, ...] = (
    agent_checks.check,
    policy.check,
    cluster.check,
    mappings.check,
    checks.metrics(METRIC_SOURCES),
    checks.silences(SILENCE_SOURCES),
    checks.logs(LOG_SOURCES),
    checks.gitops(GITOPS),
    issuer.check,
    checks.deliveries(ALERT_FORMATS),
    checks.people(CHANNELS),
)
"""In the order in which they are printed; the cluster's finds the services for those after it."""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every finding, as soon as it is known."""
    run = DoctorRun(settings=settings, clock=SystemClock())
    for check in CHECKS:
        async for finding in check(run):
            yield finding


def configuration_findings(env_file: Path) -> Finding:
    """The settings were read: from where."""
    source = f"the environment and {env_file}" if env_file.is_file() else "the environment (there is no .env)"
    return ok("configuration", f"valid; loaded from {source} at {datetime.now(UTC):%H:%M:%S} UTC")
