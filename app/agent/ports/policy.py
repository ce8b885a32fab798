"""The external policy engine, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.agent.identity.people import (
    ApprovalTerms,
)
from app.agent.ids import (
    JsonObject,
)
from app.agent.models import (
    DecisionKind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """The answer of a policy engine to one document."""

    kind: DecisionKind
    reasons: tuple[str, ...]
    rules: tuple[str, ...] = ()
    """The rules that decided, by the names that the policy gives them."""
    terms: ApprovalTerms | None = None
    """The terms of the approval, where the policy sets them."""


class PolicyEngine(Protocol):
    """An external policy, asked before every action, in addition to the built-in guardrails."""

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        """The engine's complete, well-formed answer; anything else is a deny with the reason (promise 7).

        Never raises.
        """
        ...
