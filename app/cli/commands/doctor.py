"""`heal doctor`: checks the setup of the agent and reports fixes.

Checks every dependency without changing anything: settings, store, runbooks, the
cluster and the exact permissions of the enabled actions, Prometheus and its queries,
clocks, tokens. Each finding has a fix.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.agent.actions import ACTIONS
from app.agent.evidence.format import counted
from app.agent.identity.people import Scope, scopes_of
from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    DecisionKind,
    Risk,
    SliSample,
)
from app.agent.notifications.channel import Channel
from app.agent.runbooks import Catalogue, load_catalogue
from app.bootstrap import connect_channels, connect_issuer, connect_policy
from app.cli.commands.anchors import anchor_findings
from app.cli.commands.findings import Finding, Status
from app.cli.commands.findings import fail as _fail
from app.cli.commands.findings import ok as _ok
from app.cli.commands.findings import warn as _warn
from app.cli.commands.incidents import sqlite_path
from app.cli.commands.mappings import mapping_findings, unknown_setting_findings
from app.clock import Clock, SystemClock
from app.config import Settings
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.k8s import KubernetesCluster, connect
from app.connectors.kubernetes.access import Access, clock_and_rights
from app.connectors.policy.answers import FAULT
from app.connectors.prometheus.source import PrometheusSource
from app.errors import AgentError, ConfigurationError, PermanentError
from app.store import open_store

_MOST_SERVICES_TRIED = 20
_MOST_SKEW = timedelta(seconds=5)
_INDICATORS = {
    "error rate": ("error_rate", "PROMETHEUS_ERROR_RATE_QUERY"),
    "p95 latency": ("p95_latency_ms", "PROMETHEUS_P95_QUERY"),
    "request rate": ("request_rate", "PROMETHEUS_REQUEST_RATE_QUERY"),
}


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every finding, as soon as it is known."""
    clock = SystemClock()
    for finding in unknown_setting_findings():
        yield finding
    yield _mode(settings)
    yield await _store(settings)
    for finding in anchor_findings(settings):
        yield finding
    for finding in _runbooks(settings):
        yield finding
    yield await _policy(settings)
    services: tuple[ServiceKey, ...] = ()
    try:
        cluster = connect(settings, clock)
    except ConfigurationError as error:
        cluster = None
        yield _fail("cluster", str(error), "correct the setting it names")
    else:
        if cluster is None:
            yield _warn(
                "cluster",
                "no cluster connected: the agent diagnoses incidents from posted signals, and cannot act",
                "set KUBECONFIG, or KUBE_IN_CLUSTER=true inside a cluster",
            )
    if cluster is not None:
        try:
            finding, services = await _services(cluster)
            yield finding
            if finding.status is not Status.FAIL:
                for found in mapping_findings(settings, services):
                    yield found
                for found in await _rights(settings, clock):
                    yield found
        finally:
            await cluster.close()
    async for finding in _prometheus(settings, services, clock):
        yield finding
    for finding in await _silences(settings, clock):
        yield finding
    yield _identity(settings)
    for finding in await _sign_on(settings, clock):
        yield finding
    yield _alertmanager(settings)
    for finding in await _people(settings):
        yield finding


def _mode(settings: Settings) -> Finding:
    high = "allowed" if settings.allow_high_risk_actions else "blocked"
    if settings.dry_run:
        return _ok("mode", f"dry run: no writes; high-risk actions would be {high}")
    actions = ", ".join(sorted(settings.enabled_actions)) or "none"
    return _ok(
        "mode",
        f"LIVE: the agent acts (enabled: {actions}; high risk {high}; "
        f"at most {settings.max_actions_per_incident} per incident)",
    )


async def _store(settings: Settings) -> Finding:
    path = sqlite_path(settings)
    if path is not None and not path.is_file():
        folder = path.parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            return _ok("store", f"{path} does not exist yet; the first start creates it")
        return _fail(
            "store",
            f"{path} cannot be created: {folder} is missing or not writable",
            "create the folder, or change DATABASE_URL",
        )
    try:
        store = await open_store(settings.database_url.get_secret_value())
        try:
            await store.ping()
            open_now = len(await store.open_incidents())
        finally:
            await store.close()
    except AgentError as error:
        return _fail("store", str(error), "correct DATABASE_URL, or start the database it names")
    return _ok("store", f"reachable, schema current, {counted(open_now, 'open incident')}")


def _runbooks(settings: Settings) -> list[Finding]:
    try:
        catalogue = load_catalogue(settings.runbooks_dir)
    except ConfigurationError as error:
        return [_fail("runbooks", str(error), "correct the file; the agent does not start with it")]
    names = ", ".join(runbook.reference for runbook in catalogue.runbooks)
    return [_ok("runbooks", f"{len(catalogue.runbooks)} approved: {names}"), *_blocked(settings, catalogue)]


def _blocked(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    """Runbooks with actions that policy denies."""
    used = {step.action for runbook in catalogue.runbooks for step in runbook.steps}
    found = []
    disabled = sorted(used - settings.enabled_actions)
    if disabled:
        found.append(
            _warn(
                "runbooks",
                f"runbooks use actions that are not enabled: {', '.join(disabled)}",
                "add them to ENABLED_ACTIONS, or accept that they are denied",
            )
        )
    high = sorted(a for a in used & settings.enabled_actions if ACTIONS[a].risk is Risk.HIGH)
    if high and not settings.allow_high_risk_actions:
        found.append(
            _warn(
                "runbooks",
                f"high-risk actions are denied: {', '.join(high)}",
                "set ALLOW_HIGH_RISK_ACTIONS=true when you trust the proposals of the dry runs",
            )
        )
    return found


async def _services(cluster: KubernetesCluster) -> tuple[Finding, tuple[ServiceKey, ...]]:
    try:
        services = await cluster.reader.services()
    except AgentError as error:
        return (
            _fail(
                "cluster", str(error), "check KUBECONFIG, KUBE_CONTEXT and the list permission of the agent"
            ),
            (),
        )
    if not services:
        return (
            _warn(
                "cluster",
                "reachable, but no Deployment maps to a service",
                "label Deployments with app.kubernetes.io/name, and check ENVIRONMENT_NAMESPACES",
            ),
            services,
        )
    return _ok("cluster", f"reachable; {counted(len(services), 'service')}"), services


async def _rights(settings: Settings, clock: Clock) -> list[Finding]:
    """Check each permission with the API server."""
    try:
        answer = await clock_and_rights(settings, needed_rights(settings), clock)
    except AgentError as error:
        return [
            _warn(
                "rights", f"cannot be checked: {error}", "allow the agent to create selfsubjectaccessreviews"
            )
        ]
    found = []
    missing = [access for access, allowed in answer.rights if not allowed]
    untried = [access for access in missing if (access.verb, access.resource) == _TRIES_PODS]
    autoscalers = [access for access in missing if access.resource == _AUTOSCALERS]
    missing = [access for access in missing if access not in (*untried, *autoscalers)]
    if autoscalers:
        found.append(
            _warn(
                "autoscalers",
                f"not read, so `scale` may be overridden: {autoscalers[0]} is forbidden",
                "grant the role of docs/kubernetes.md",
            )
        )
    if untried:
        found.append(
            _warn(
                "new pods",
                f"dry runs do not test new pods: {', '.join(str(access) for access in untried)} is forbidden",
                "allow the agent to create pods in a dry run, with the policy of docs/kubernetes.md",
            )
        )
    if missing:
        reading = any(access.verb != "patch" for access in missing)
        found.append(
            _fail(
                "rights",
                "forbidden: " + ", ".join(str(access) for access in missing),
                "the agent cannot read required objects; add these verbs to its Role"
                if reading
                else "add these verbs to its Role (a dry run requires them too), or remove the actions that "
                "require them from ENABLED_ACTIONS",
            )
        )
    elif not untried:
        found.append(
            _ok("rights", f"all {len(answer.rights)} permissions of the enabled actions are granted")
        )
    found.append(_skew("clock of the API server", answer.skew))
    return found


_TRIES_PODS = ("create", "pods")
"""Optional: without it a dry run tests the Deployment only."""
_AUTOSCALERS = "horizontalpodautoscalers"
"""Optional: without it the agent does not know what else sets the replicas."""


def needed_rights(settings: Settings) -> tuple[Access, ...]:
    """The exact permissions for reading and for each enabled action, dry run or not."""
    namespaces: Sequence[str] = sorted(
        {
            *settings.environment_namespaces.values(),
            *(place.partition("/")[0] for place in settings.service_workloads.values()),
        }
    )
    if not settings.environment_namespaces:
        namespaces = [""]
    needed = [
        *((verb, "apps", "deployments") for verb in ("get", "list", "watch")),
        *((verb, "apps", "replicasets") for verb in ("list", "watch")),
        *((verb, "", "pods") for verb in ("list", "watch")),
        *((verb, "", "configmaps") for verb in ("get", "list", "watch")),
        ("list", "", "events"),
        ("list", "autoscaling", _AUTOSCALERS),
    ]
    writing = settings.enabled_actions - {ActionName.NOTIFY}
    if writing:
        needed.append(("list", "policy", "poddisruptionbudgets"))
        needed.append(("get", "", "namespaces"))
        needed.append(("patch", "apps", "deployments"))
        needed.append((_TRIES_PODS[0], "", _TRIES_PODS[1]))
    if ActionName.REVERT_CONFIG in writing:
        needed.append(("patch", "", "configmaps"))
    return tuple(
        Access(verb=verb, group=group, resource=resource, namespace=namespace)
        for namespace in namespaces
        for verb, group, resource in needed
    )


async def _prometheus(
    settings: Settings, services: tuple[ServiceKey, ...], clock: Clock
) -> AsyncIterator[Finding]:
    if settings.prometheus_url is None:
        yield _warn(
            "prometheus",
            "not configured: error rate and latency are available from posted metrics only",
            "set PROMETHEUS_URL",
        )
        return
    try:
        source = PrometheusSource.from_settings(settings)
    except ConfigurationError as error:
        yield _fail("prometheus", str(error), "correct the setting it names")
        return
    try:
        await source.ping()
        yield _ok("prometheus", "answers queries")
        async for finding in _queries(source, services[:_MOST_SERVICES_TRIED], clock):
            yield finding
    except AgentError as error:
        yield _fail("prometheus", str(error), "check PROMETHEUS_URL and PROMETHEUS_BEARER_TOKEN")
    finally:
        await source.aclose()


async def _silences(settings: Settings, clock: Clock) -> tuple[Finding, ...]:
    """Whether silences can be read; the agent does not act while they cannot."""
    if settings.alertmanager_url is None:
        return ()
    try:
        source = AlertmanagerSilences.from_settings(settings)
    except ConfigurationError as error:
        return (_fail("silences", str(error), "correct the setting it names"),)
    try:
        active = await source.active(clock.now())
        return (_ok("silences", f"Alertmanager reachable; {counted(len(active), 'active silence')}"),)
    except AgentError as error:
        return (_fail("silences", str(error), "check ALERTMANAGER_URL and ALERTMANAGER_API_TOKEN"),)
    finally:
        await source.aclose()


async def _queries(
    source: PrometheusSource, services: Sequence[ServiceKey], clock: Clock
) -> AsyncIterator[Finding]:
    """Whether each query template returns data for at least one service of the cluster."""
    if not services:
        yield _warn("queries", "not tested: no service known", "connect a cluster, and label its Deployments")
        return
    samples: list[SliSample] = []
    faults: list[str] = []
    for key in services:
        try:
            samples.append(
                await source.sli(key, clock.now())
            )  # one at a time, to limit the load on Prometheus
        except PermanentError as error:
            faults.append(str(error))
    if faults:
        yield _fail(
            "queries",
            f"{len(services) - len(samples)} of {len(services)} services cannot be measured: " + faults[0],
            "run the query in Prometheus: it must return one current value per service",
        )
    if not samples:
        return
    for name, (attribute, setting) in _INDICATORS.items():
        having = sum(getattr(sample, attribute) is not None for sample in samples)
        if having:
            yield _ok("queries", f"{name}: data for {having} of {len(samples)} tested services")
        else:
            yield _fail(
                "queries",
                f"{name}: no data for any of {len(samples)} tested services, such as {services[0]}",
                f"run the query of {setting} in Prometheus, and adapt its labels",
            )


def _skew(check: str, skew: timedelta | None) -> Finding:
    if skew is None:
        return _warn(check, "unknown: no response with a time", "synchronize both machines with NTP")
    seconds = skew.total_seconds()
    if abs(skew) > _MOST_SKEW:
        return _fail(
            check,
            f"differs by {seconds:+.0f} s from this machine",
            "synchronize both with NTP: staleness and soak depend on the clock",
        )
    return _ok(check, f"within {abs(seconds):.0f} s of this machine")


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
        return _ok("identity", f"required: every request needs a token or a sign-in; {may}")
    if settings.listens_on != settings.host:
        return _fail(
            "identity",
            f"not configured, so the agent does not listen on HOST={settings.host}",
            "set REQUIRE_IDENTITY=true and create a token with `heal token create`, or set OIDC_ISSUER",
        )
    return _warn(
        "identity",
        "authentication disabled: accepting localhost connections only",
        "set REQUIRE_IDENTITY=true and create a token with `heal token create`, or set OIDC_ISSUER",
    )


def _roles(settings: Settings) -> list[Finding]:
    """Configured roles that no sign-in can have."""
    if not settings.identity_required or settings.oidc_issuer is not None or settings.slack_users:
        return []
    found = []
    if settings.role_scopes != Settings.model_fields["role_scopes"].default:
        found.append(
            _warn(
                "roles",
                "ROLE_SCOPES has no effect: neither OIDC_ISSUER nor SLACK_USERS assigns roles, and "
                "tokens have their own scopes",
                "set OIDC_ISSUER or SLACK_USERS, or remove ROLE_SCOPES",
            )
        )
    asked = _asked_roles(settings)
    if asked:
        found.append(
            _warn(
                "roles",
                f"approvals need the role {' or '.join(asked)}, which only tokens can have: neither "
                "OIDC_ISSUER nor SLACK_USERS is set",
                f"create a token with `heal token create NAME --scope approve --role {asked[0]}`, or set "
                "OIDC_ISSUER or SLACK_USERS",
            )
        )
    return found


def _asked_roles(settings: Settings) -> list[str]:
    """Every role that an approval may need, its escalation included."""
    steps = (role for step in settings.approval_escalation for role in step.roles)
    return sorted({*settings.approval_roles, *steps})


async def _sign_on(settings: Settings, clock: Clock) -> list[Finding]:
    """Whether people can sign in, and can have the roles that approvals require."""
    found = _roles(settings)
    asked = _asked_roles(settings)
    if asked and not settings.identity_required and not settings.slack_users:
        roles = ", ".join(asked)
        found.append(
            _fail(
                "approvals",
                f"no person can have the role {roles}: identity is not configured",
                "set REQUIRE_IDENTITY=true, or remove APPROVAL_ROLES and APPROVAL_ESCALATION",
            )
        )
    try:
        issuer = connect_issuer(settings, clock)
        if issuer is not None:
            await issuer.begin()
            found.append(_ok("sign-in", "the issuer (OIDC_ISSUER) is reachable"))
    except AgentError as error:
        found.append(_fail("sign-in", str(error), "correct OIDC_ISSUER; tokens still work"))
    return found


def _alertmanager(settings: Settings) -> Finding:
    if settings.alertmanager_token is None and settings.identity_required:
        return _ok("alertmanager", "accepted with an API token of scope ingest; no ALERTMANAGER_TOKEN")
    if settings.alertmanager_token is not None:
        return _ok("alertmanager", "a token is set; send it as http_config.authorization.credentials")
    return _warn(
        "alertmanager",
        "no token: accepting deliveries from localhost only",
        "set ALERTMANAGER_TOKEN, and the same value in Alertmanager",
    )


async def _policy(settings: Settings) -> Finding:
    """Whether the policy engine decides: it must deny an empty document."""
    where = "OPA_URL" if settings.opa_url else "POLICY_DIR"
    try:
        engine = connect_policy(settings)
    except ConfigurationError as error:
        return _fail("policy", str(error), f"correct {where}; `heal policy check` lists every error")
    try:
        answer = await engine.decide({})
    finally:
        await engine.aclose()
    told = "; ".join(answer.reasons)
    if answer.rules == FAULT:
        return _fail("policy", f"every action is denied: {told}", f"correct {where}")
    if answer.kind is not DecisionKind.DENY:
        return _fail(
            "policy",
            f"the decision on an empty document is {answer.kind}",
            "deny unknown input in the policy",
        )
    return _ok("policy", f"{'the server of OPA_URL' if settings.opa_url else 'the embedded engine'} decides")


async def _people(settings: Settings) -> list[Finding]:
    """Whether notifications reach a channel; each channel is checked, and nothing is posted."""
    wanted = {
        "NOTIFY_WEBHOOK_URL": settings.notify_webhook_url,
        "SLACK_BOT_TOKEN": settings.slack_bot_token,
        "TEAMS_WEBHOOK_URL": settings.teams_webhook_url,
    }
    named = ", ".join(name for name, value in wanted.items() if value is not None)
    if not named:
        return [
            _warn(
                "people",
                "no notification channel: escalations are recorded only",
                "set NOTIFY_WEBHOOK_URL, SLACK_BOT_TOKEN or TEAMS_WEBHOOK_URL",
            )
        ]
    if settings.dry_run:
        return [_ok("people", f"{named} set; a dry run sends no notifications")]
    try:
        channels = connect_channels(settings)
    except ConfigurationError as error:
        return [_fail("people", str(error), "correct the setting it names")]
    return [await _reachable(channel) for channel in channels]


async def _reachable(channel: Channel) -> Finding:
    try:
        await channel.check()
    except AgentError as error:
        return _fail(
            "people",
            f"{channel.name}: {error}",
            "correct its settings; pending notifications are sent later",
        )
    finally:
        await channel.aclose()
    return _ok("people", f"{channel.name} is reachable")


def configuration_findings(env_file: Path) -> Finding:
    """The settings were read: from where."""
    source = f"the environment and {env_file}" if env_file.is_file() else "the environment (there is no .env)"
    return _ok("configuration", f"valid; loaded from {source} at {datetime.now(UTC):%H:%M:%S} UTC")
