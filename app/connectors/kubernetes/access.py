"""Checks the permissions of the agent's identity with the API server.

One `SelfSubjectAccessReview` per right: the only way to know without trying.
Called by `heal doctor` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx2
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

from app.clock import Clock
from app.config import Settings
from app.connectors.kubernetes.api import load_config
from app.errors import ConfigurationError, PermanentError, TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One right: a verb on a resource in a namespace, or in all of them."""

    verb: str
    group: str
    resource: str
    namespace: str

    def __str__(self) -> str:
        where = f"in {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.verb} {self.resource} {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerAnswer:
    """What the API server said, and how far its clock is ahead of this machine's, to a second."""

    rights: tuple[tuple[Access, bool], ...]
    skew: timedelta | None


async def clock_and_rights(settings: Settings, wanted: Sequence[Access], clock: Clock) -> ApiServerAnswer:
    """Ask for each right; raises like every port."""
    config = load_config(settings)
    if config is None:
        raise ConfigurationError("no cluster is configured")
    skew: timedelta | None = None
    rights: list[tuple[Access, bool]] = []
    try:
        async with AsyncClient(config=config) as client:
            for access in wanted:
                review = await client.create(_review(access))
                rights.append((access, bool(review.status and review.status.allowed)))
                skew = _skew(review, clock) or skew
    except ApiError as error:
        raise PermanentError(f"the API server refused: {error}") from error
    except (httpx2.HTTPError, ConfigError, OSError, ValueError, KeyError) as error:
        # The last two: lightkube trips over answers that are not Kubernetes' own.
        raise TransientError(f"the API server does not answer: {type(error).__name__}") from error
    return ApiServerAnswer(rights=tuple(rights), skew=skew)


def _review(access: Access) -> SelfSubjectAccessReview:
    return SelfSubjectAccessReview(
        spec=SelfSubjectAccessReviewSpec(
            resourceAttributes=ResourceAttributes(
                verb=access.verb,
                group=access.group,
                resource=access.resource,
                namespace=access.namespace or None,
            )
        )
    )


def _skew(review: SelfSubjectAccessReview, clock: Clock) -> timedelta | None:
    """The server stamps what it is sent; the stamp has whole seconds."""
    fields = (review.metadata.managedFields if review.metadata else None) or ()
    stamps = [field.time for field in fields if field.time is not None]
    return max(stamps) - clock.now() if stamps else None
