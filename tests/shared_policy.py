"""One engine of the shipped policies for all stories of a process.

An engine has a thread of its own and reads and checks the bundle when it starts, which
takes as long as 50 s of a story. It holds no state between two decisions.
`tests.conftest` closes it at the end of the run.
"""

from __future__ import annotations

import asyncio
from functools import cache

from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy


@cache
def shared_policy() -> EmbeddedPolicy:
    """The engine; stories do not close it."""
    return EmbeddedPolicy(shipped_policies(), timeout_seconds=60)


def close_shared_policy() -> None:
    """Close the engine if there is one: it can be dropped on its own thread only."""
    if shared_policy.cache_info().currsize:
        asyncio.run(shared_policy().aclose())
        shared_policy.cache_clear()
