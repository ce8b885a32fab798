"""Addresses that must be usable, and settings that need one another; checked in a dry run too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from app.settings.addresses import is_address, is_base_url
from app.settings.clusters import check_clusters

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
)
"""A setting, and one that it does nothing without."""

_LONG = (("audit_anchor_key", "audit_anchor_key"), ("oidc_issuer", "session_secret"))
"""A setting, and the secret that must be long where it is set."""

_MIN_SECRET = 32


def check_together(given: Mapping[str, Any]) -> None:
    """`ValueError` for the first settings that do not go together, naming both."""
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
    check_clusters(given)
    for name in given:
        if name.endswith("_webhook_url") and given[name] is not None and not is_address(_text(given[name])):
            raise ValueError(f"{name.upper()} must be an address such as https://host/path")


def _text(secret: SecretStr) -> str:
    return secret.get_secret_value()
