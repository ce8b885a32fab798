"""The checks of `heal doctor` on the agent itself: mode, store, runbooks, identity."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from app.agent.actions import ACTIONS
from app.agent.evidence.format import counted
from app.agent.identity.people import Scope, scopes_of
from app.agent.models import ActionName, Risk
from app.agent.runbooks import Catalogue, load_catalogue
from app.cli.commands.anchors import anchor_findings
from app.cli.commands.incidents import sqlite_path
from app.config import ROLE_SETTINGS, Settings, unknown_in_env_file
from app.connectors.findings import DoctorRun, Finding, fail, ok, warn
from app.connectors.kinds import first_configured
from app.connectors.registry import SILENCE_SOURCES
from app.errors import AgentError, ConfigurationError
from app.lists import some_of
from app.settings.config_file import read_config
from app.settings.names import ESCAPE
from app.settings.services import read_services
from app.store import open_store

_MOST_SHOWN = 10


async def check(run: DoctorRun) -> AsyncIterator[Finding]:
    """The parts that are no connectors."""
    settings = run.settings
    unknown = unknown_in_env_file()
    if unknown:
        yield warn(
            "configuration",
            f".env has unknown settings without effect: {some_of(unknown, _MOST_SHOWN)}",
            f"correct or remove them, or list them in {ESCAPE}",
        )
    if settings.config_file is not None:
        given = counted(len(read_config(settings.config_file, Settings)), "setting")
        yield ok("configuration file", f"{given} in {settings.config_file}")
    yield _mode(settings)
    yield await _store(settings)
    for finding in (*anchor_findings(settings), *_runbooks(settings)):
        yield finding
    for finding in _services(settings):
        yield finding
    yield _identity(settings)
    for finding in (*_roles(settings), *_approvals(settings)):
        yield finding


def _mode(settings: Settings) -> Finding:
    high = "allowed" if settings.allow_high_risk_actions else "blocked"
    if settings.dry_run:
        return ok("mode", f"dry run: no writes; high-risk actions would be {high}")
    actions = ", ".join(sorted(settings.enabled_actions)) or "none"
    return ok(
        "mode",
        f"LIVE: the agent acts (enabled: {actions}; high risk {high}; "
        f"at most {settings.max_actions_per_incident} per incident)",
    )


async def _store(settings: Settings) -> Finding:
    path = sqlite_path(settings)
    if path is not None and not path.is_file():
        folder = path.parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            return ok("store", f"{path} does not exist yet; the first start creates it")
        return fail(
            "store",
            f"{path} cannot be created: {folder} is missing or not writable",
            "create the folder, or change DATABASE_URL",
        )
    try:
        store = await open_store(settings.database_url.get_secret_value())
        try:
            await store.ping()
            open_now = len(await store.incidents.all_open())
        finally:
            await store.close()
    except AgentError as error:
        return fail("store", str(error), "correct DATABASE_URL, or start the database it names")
    return ok("store", f"reachable, schema current, {counted(open_now, 'open incident')}")


def _services(settings: Settings) -> list[Finding]:
    if settings.services_file is None:
        return []
    try:
        found = read_services(settings.services_file)
    except ConfigurationError as error:
        fix = "correct the file; a running agent keeps the last valid content, and a new one does not start"
        return [fail("services file", str(error), fix)]
    return [ok("services file", f"{counted(len(found), 'service')} in {settings.services_file}")]


def _runbooks(settings: Settings) -> list[Finding]:
    try:
        catalogue = load_catalogue(settings.runbooks_folder)
    except ConfigurationError as error:
        return [fail("runbooks", str(error), _to_have_runbooks(settings))]
    names = ", ".join(runbook.reference for runbook in catalogue.runbooks)
    return [ok("runbooks", f"{len(catalogue.runbooks)} approved: {names}"), *_blocked(settings, catalogue)]


def _blocked(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    """Runbooks with actions that policy denies."""
    used = {step.action for runbook in catalogue.runbooks for step in runbook.steps}
    found = []
    disabled = sorted(used - settings.enabled_actions)
    if disabled:
        found.append(
            warn(
                "runbooks",
                f"runbooks use actions that are not enabled: {', '.join(disabled)}",
                "add them to ENABLED_ACTIONS, or accept that they are denied",
            )
        )
    if ActionName.RERUN_JOB in settings.enabled_actions and not settings.watch_jobs:
        found.append(
            warn(
                "runbooks",
                f"{ActionName.RERUN_JOB} is enabled and never planned: failed Jobs are not watched",
                "set WATCH_JOBS=true, or remove it from ENABLED_ACTIONS",
            )
        )
    source = first_configured(SILENCE_SOURCES, settings)
    polled = source is not None and source.polled_every(settings) is not None
    if ActionName.SILENCE_ALERTS in settings.enabled_actions and not polled:
        needed = " or ".join(f"{one.settings[0]} and {one.polling}" for one in SILENCE_SOURCES)
        found.append(
            warn(
                "runbooks",
                f"{ActionName.SILENCE_ALERTS} is enabled and never planned: alerts are not polled, "
                "so that the end of a silenced alert would not be seen",
                f"set {needed}, or remove it from ENABLED_ACTIONS",
            )
        )
    high = sorted(a for a in used & settings.enabled_actions if ACTIONS[a].risk is Risk.HIGH)
    if high and not settings.allow_high_risk_actions:
        found.append(
            warn(
                "runbooks",
                f"high-risk actions are denied: {', '.join(high)}",
                "set ALLOW_HIGH_RISK_ACTIONS=true when you trust the proposals of the dry runs",
            )
        )
    return found


def _identity(settings: Settings) -> Finding:
    if settings.identity_required:
        approving = [
            role for role in settings.role_scopes if Scope.APPROVE in scopes_of([role], settings.role_scopes)
        ]
        may = (
            f"people who sign in may approve as {', '.join(approving)}"
            if approving
            else "only tokens may approve"
        )
        return ok("identity", f"required: every request needs a token or a sign-in; {may}")
    if settings.listens_on != settings.host:
        return fail(
            "identity",
            f"not configured, so the agent does not listen on HOST={settings.host}",
            "set REQUIRE_IDENTITY=true and create a token with `heal token create`, or set OIDC_ISSUER",
        )
    return warn(
        "identity",
        "authentication disabled: accepting localhost connections only",
        "set REQUIRE_IDENTITY=true and create a token with `heal token create`, or set OIDC_ISSUER",
    )


def _roles(settings: Settings) -> list[Finding]:
    """Configured roles that no sign-in can have."""
    if not settings.identity_required or settings.oidc_issuer is not None or settings.chat_users:
        return []
    found = []
    sources = " or ".join(ROLE_SETTINGS)
    if settings.role_scopes != Settings.model_fields["role_scopes"].default:
        found.append(
            warn(
                "roles",
                f"ROLE_SCOPES has no effect: neither {' nor '.join(ROLE_SETTINGS)} assigns roles, and "
                "tokens have their own scopes",
                f"set {sources}, or remove ROLE_SCOPES",
            )
        )
    asked = _asked_roles(settings)
    if asked:
        found.append(
            warn(
                "roles",
                f"approvals need the role {' or '.join(asked)}, which only tokens can have: neither "
                f"{' nor '.join(ROLE_SETTINGS)} is set",
                f"create a token with `heal token create NAME --scope approve --role {asked[0]}`, or set "
                f"{sources}",
            )
        )
    return found


def _asked_roles(settings: Settings) -> list[str]:
    """Every role that an approval may need, its escalation included."""
    steps = (role for step in settings.approval_escalation for role in step.roles)
    return sorted({*settings.approval_roles, *steps})


def _approvals(settings: Settings) -> list[Finding]:
    asked = _asked_roles(settings)
    if not asked or settings.identity_required or settings.chat_users:
        return []
    return [
        fail(
            "approvals",
            f"no person can have the role {', '.join(asked)}: identity is not configured",
            "set REQUIRE_IDENTITY=true, or remove APPROVAL_ROLES and APPROVAL_ESCALATION",
        )
    ]


def _to_have_runbooks(settings: Settings) -> str:
    folder = settings.runbooks_folder
    if folder.is_dir() and any(folder.glob("*.y*ml")):
        return "correct the file; the agent does not start with it"
    if settings.runbooks_dir is None:
        return "install the agent again with its data files, or set RUNBOOKS_DIR to a folder of runbooks"
    return "set RUNBOOKS_DIR to a folder of runbooks, or remove it to use the runbooks of the agent"
