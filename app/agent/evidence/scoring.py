"""Combines findings into one confidence.

A finding for a cause removes a share of the remaining doubt; a finding against it
removes a share of the confidence. Evidence for a cause never lowers its confidence,
evidence against it never raises it, and the result stays within 0..1.
"""

from __future__ import annotations

from app.agent.models import Cause, Hypothesis


class CauseScore:
    """Findings for and against one cause, and the resulting confidence."""

    def __init__(self) -> None:
        self._doubt = 1.0
        self._kept = 1.0
        self._for: list[str] = []
        self._against: list[str] = []

    @property
    def confidence(self) -> float:
        """0..1, rounded to a hundredth."""
        return round((1.0 - self._doubt) * self._kept, 2)

    @property
    def grounds(self) -> bool:
        """Whether there is any evidence for the cause."""
        return bool(self._for)

    def add_for(self, weight: float, finding: str) -> None:
        """`weight` is the share of the remaining doubt that the finding removes."""
        self._doubt *= 1.0 - weight
        self._for.append(finding)

    def add_against(self, weight: float, finding: str) -> None:
        """`weight` is the share of the confidence that the finding removes."""
        self._kept *= 1.0 - weight
        self._against.append(finding)

    def hypothesis(self, cause: Cause, rule: str) -> Hypothesis | None:
        """The hypothesis, or None without evidence for it."""
        if not self.grounds:
            return None
        return Hypothesis(
            cause=cause,
            confidence=self.confidence,
            rule=rule,
            evidence_for=tuple(self._for),
            evidence_against=tuple(self._against),
        )
