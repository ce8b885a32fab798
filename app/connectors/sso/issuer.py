"""Constructs the sign-in issuer that the settings name, and checks it for `heal doctor`."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator

from app.agent.ports.people import IdentityProvider
from app.clock import Clock
from app.config import Settings
from app.connectors.findings import DoctorRun, Finding, fail, ok
from app.errors import AgentError, ConfigurationError

_EXTRA = ("authlib", "itsdangerous")


def connect_issuer(settings: Settings, clock: Clock) -> IdentityProvider | None:
    """The issuer that OIDC_ISSUER names, where people are served; asks nothing yet.

    Raises `ConfigurationError` where it cannot be used, or its packages are missing.
    """
    if settings.oidc_issuer is None or not settings.serves_people:
        return None
    if any(importlib.util.find_spec(name) is None for name in _EXTRA):
        raise ConfigurationError("sign-in with OIDC_ISSUER needs the extra 'oidc': pip install '.[oidc]'")
    from app.connectors.sso.oidc import OidcIssuer  # the extra is optional

    return OidcIssuer.from_settings(settings, clock)


async def check(run: DoctorRun) -> AsyncIterator[Finding]:
    """Whether the issuer is reachable, where one is set."""
    try:
        issuer = connect_issuer(run.settings, run.clock)
        if issuer is not None:
            await issuer.begin()
            yield ok("sign-in", "the issuer (OIDC_ISSUER) is reachable")
    except AgentError as error:
        yield fail("sign-in", str(error), "correct OIDC_ISSUER; tokens still work")
