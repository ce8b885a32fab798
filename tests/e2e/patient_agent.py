"""The product over the counting stand-in, with decisions that stay valid on a machine that is slow.

An action that was begun and has no visible effect is repeated while its decision is fresh,
and handed to a person once it is older than a minute. A test whose other processes
start in between runs its own with this, so that the machine's speed does not decide which.
"""

from __future__ import annotations

from datetime import timedelta

from app.agent.execution import recheck
from tests.soak import agent


def main() -> None:
    recheck.MAX_DECISION_AGE = timedelta(hours=1)
    agent.main()


if __name__ == "__main__":
    main()
