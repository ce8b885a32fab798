"""Addresses that must be usable, and settings that need one another; checked in a dry run too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.settings.addresses import is_address, is_base_url
from app.settings.entries import ClusterSetting, Role
from app.settings.wrong import at_most

_NEEDS = (
    ("audit_anchor_key", "audit_anchor_dir"),
    ("oidc_client_id", "oidc_issuer"),
    ("oidc_client_secret", "oidc_issuer"),
    ("oidc_issuer", "oidc_client_id"),
    ("oidc_issuer", "public_url"),
    ("oidc_issuer", "session_secret"),
    ("slack_channel", "slack_bot_token"),
    ("slack_signing_secret", "slack_bot_token"),
    ("slack_app_token", "slack_bot_token"),
    ("notify_webhook_secret", "notify_webhook_url"),
    ("loki_token", "loki_url"),
    ("loki_tenant", "loki_url"),
)
"""A setting, and one that it does nothing without."""

_LONG = (("audit_anchor_key", "audit_anchor_key"), ("oidc_issuer", "session_secret"))
"""A setting, and the secret that must be long where it is set."""

_MIN_SECRET = 32

_ASKED = ("kube", "prometheus", "alertmanager", "datadog", "argocd")
"""What is asked for evidence; each has a time-out."""


def check_together(given: Mapping[str, Any], *, embedded: bool) -> None:
    """`ValueError` for the first settings that do not go together, naming both. `embedded`: on SQLite."""
    _check_bounds(given, embedded=embedded)
    for name, needed in _NEEDS:
        if given[name] is not None and given[needed] is None:
            raise ValueError(f"{name.upper()} needs {needed.upper()}")
    for name, secret in _LONG:
        if given[name] is not None and len(_text(given[secret])) < _MIN_SECRET:
            raise ValueError(
                f"{secret.upper()} needs at least {_MIN_SECRET} characters: openssl rand -hex 32"
            )
    if given["oidc_issuer"] is not None and "openid" not in given["oidc_scopes"].split():
        raise ValueError("OIDC_SCOPES must contain openid")
    if given["slack_bot_token"] is not None and not (given["slack_channel"] or "").strip():
        raise ValueError("SLACK_BOT_TOKEN needs SLACK_CHANNEL: the id of the channel for incidents")
    if given["public_url"] is not None and not is_base_url(given["public_url"]):
        raise ValueError("PUBLIC_URL must be an absolute address without a query: https://heal.example.com")
    collector = given["otel_exporter_otlp_endpoint"]
    if collector is not None and not is_base_url(collector):
        raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT must be an address: http://collector:4318")
    _check_clusters(given)
    for name in given:
        if name.endswith("_webhook_url") and given[name] is not None and not is_address(_text(given[name])):
            raise ValueError(f"{name.upper()} must be an address such as https://host/path")


def _check_bounds(given: Mapping[str, Any], *, embedded: bool) -> None:
    """`ValueError` where a limit or time exceeds the one that bounds it, or SQLite cannot serve the role."""
    at_most(SCALE_MIN_REPLICAS=given["scale_min_replicas"], SCALE_MAX_REPLICAS=given["scale_max_replicas"])
    if embedded and given["role"] in (Role.API, Role.WATCH):
        raise ValueError(
            f"ROLE={given['role']} requires PostgreSQL in DATABASE_URL: SQLite supports one process, ROLE=all"
        )
    at_most(
        BACKOFF_BASE_SECONDS=given["backoff_base_seconds"], BACKOFF_MAX_SECONDS=given["backoff_max_seconds"]
    )
    timeout, soak = given["verify_timeout_seconds"], given["verify_soak_seconds"]
    if timeout < soak:
        raise ValueError(
            f"VERIFY_TIMEOUT_SECONDS={timeout:g} is below VERIFY_SOAK_SECONDS={soak:g}: "
            "no recovery can be verified; raise the first"
        )
    longest, slowest = max(
        (given[f"{name}_timeout_seconds"], f"{name.upper()}_TIMEOUT_SECONDS") for name in _ASKED
    )
    oldest = given["evidence_max_age_seconds"]
    if oldest < longest:
        raise ValueError(
            f"EVIDENCE_MAX_AGE_SECONDS={oldest:g} is below {slowest}={longest:g}: "
            "evidence could be too old before all of it is gathered; raise the first or lower the second"
        )


def _text(secret: SecretStr) -> str:
    return secret.get_secret_value()


def _check_clusters(given: Mapping[str, Any]) -> None:
    """`ValueError` for clusters that look the same, naming both and the fix."""
    clusters: Mapping[str, ClusterSetting] = given["clusters"]
    if not clusters:
        return
    unnamed = given["kube_in_cluster"] or given["kubeconfig"] is not None
    own: Mapping[str, str] = given["environment_namespaces"]
    if unnamed and not own:
        raise ValueError(
            "CLUSTERS needs ENVIRONMENT_NAMESPACES for the cluster of KUBECONFIG: without it every namespace "
            "is an environment of that cluster"
        )
    if own and not unnamed:
        raise ValueError(
            "ENVIRONMENT_NAMESPACES belongs to no cluster: set KUBECONFIG, or move the environments to "
            "environment_namespaces of a cluster of CLUSTERS"
        )
    _once("environment", _environments(clusters, own), "an environment is in one cluster: rename one of them")
    _once("connection", _connections(clusters, given), "two names of one cluster: keep one")
    _once("labels", _labels(clusters, given), "set alert_labels that only its own alerts have")
    _once(
        "argocd_destination",
        (
            (one.argocd_destination, f"CLUSTERS.{name}")
            for name, one in clusters.items()
            if one.argocd_destination
        ),
        "an Application deploys to one of them: correct the other",
    )
    _measured_apart(given, clusters, own)
    known = {environment for environment, _ in _environments(clusters, own)}
    for service in given["service_workloads"]:
        environment = service.partition("/")[0]
        if environment not in known and not unnamed:
            raise ValueError(
                f"SERVICE_WORKLOADS names {service}, and no cluster has environment {environment}: add it to "
                "environment_namespaces of a cluster of CLUSTERS"
            )


_QUERIES = (
    (
        "prometheus_url",
        ("prometheus_error_rate_query", "prometheus_p95_query", "prometheus_request_rate_query"),
    ),
    ("datadog_api_key", ("datadog_errors_query", "datadog_p95_query", "datadog_requests_query")),
)
"""A metric source, and the queries that it is asked."""
_APART = re.compile(r"\{\{\s*(?:cluster|environment)\s*\}\}")


def _measured_apart(
    given: Mapping[str, Any], clusters: Mapping[str, ClusterSetting], own: Mapping[str, str]
) -> None:
    """`ValueError` where a query cannot tell services of one namespace in two clusters apart."""
    places = [*own.values()] + [
        n for one in clusters.values() for n in {*one.environment_namespaces.values()}
    ]
    shared = sorted({one for one in places if places.count(one) > 1})
    for source, queries in _QUERIES:
        for query in queries:
            if shared and given[source] is not None and not _APART.search(given[query]):
                raise ValueError(
                    f"{query.upper()} measures namespace {shared[0]} of several clusters as one: select by "
                    "{{cluster}} or {{environment}} too, with the label that your metrics have"
                )


def _environments(
    clusters: Mapping[str, ClusterSetting], own: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    yield from ((environment, "ENVIRONMENT_NAMESPACES") for environment in own)
    for name, one in clusters.items():
        yield from ((environment, f"CLUSTERS.{name}") for environment in one.environment_namespaces)


def _connections(
    clusters: Mapping[str, ClusterSetting], given: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    if given["kube_in_cluster"]:
        yield "in_cluster", "KUBE_IN_CLUSTER"
    elif given["kubeconfig"] is not None:
        yield _reached(given["kubeconfig"], given["kube_context"]), "KUBECONFIG"
    for name, one in clusters.items():
        reached = "in_cluster" if one.kubeconfig is None else _reached(one.kubeconfig, one.context)
        yield reached, f"CLUSTERS.{name}"


def _reached(kubeconfig: Path, context: str | None) -> str:
    return f"{kubeconfig} with context {context or 'current-context'}"


def _labels(clusters: Mapping[str, ClusterSetting], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if given["alert_home_labels"]:
        yield _written(given["alert_home_labels"]), "ALERT_HOME_LABELS"
    for name, one in clusters.items():
        yield _written(one.labels(name)), f"CLUSTERS.{name}"


def _written(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _once(what: str, places: Iterator[tuple[str, str]], fix: str) -> None:
    found: dict[str, str] = {}
    for value, place in places:
        if value in found:
            raise ValueError(f"{found[value]} and {place} have the same {what} ({value}): {fix}")
        found[value] = place
