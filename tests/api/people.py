"""An application that wants to know who asks, and tokens to tell it with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.agent.identity import tokens
from app.agent.identity.people import NO_LIMIT, Door, Person, Reach, Scope
from tests.api.harness import Harness, harness, make_settings


@contextmanager
def guarded(folder: Path, **changes: Any) -> Iterator[Harness]:
    """An application with identity required."""
    with harness(make_settings(folder, require_identity=True, **changes)) as api:
        yield api


def token(
    api: Harness,
    name: str,
    *scopes: Scope,
    roles: Iterable[str] = (),
    lifetime: timedelta | None = None,
    reach: Reach = NO_LIMIT,
) -> dict[str, str]:
    """The header that proves a new token, made as `heal token create` makes it."""
    issued = api.run(
        tokens.create(
            api.container.store.credentials,
            name,
            scopes=scopes,
            roles=roles,
            lifetime=lifetime,
            reach=reach,
            by=Person(name="root", door=Door.CLI),
            at=api.clock.now(),
        )
    )
    return {"Authorization": f"Bearer {issued.text}"}
