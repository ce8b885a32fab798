"""How single findings become one confidence.

Each finding for a cause is a share of the doubt that it removes, each finding
against it a share of the belief that it takes away: more evidence for never
lowers a confidence, more evidence against never raises it, and both stay
within 0..1.
"""

from __future__ import annotations

from app.agent.models import Cause, Hypothesis


class Weighing:
    """Collects findings for and against one cause."""

    def __init__(self) -> None:
        self._doubt = 1.0
        self._kept = 1.0
        self._for: list[str] = []
        self._against: list[str] = []

    @property
    def confidence(self) -> float:
        """0..1, rounded to a hundredth: more digits would claim a precision that is not there."""
        return round((1.0 - self._doubt) * self._kept, 2)

    @property
    def grounds(self) -> bool:
        """Whether anything at all speaks for the cause."""
        return bool(self._for)

    def speaks_for(self, weight: float, finding: str) -> None:
        """`weight` is the share of the remaining doubt that the finding removes."""
        self._doubt *= 1.0 - weight
        self._for.append(finding)

    def speaks_against(self, weight: float, finding: str) -> None:
        """`weight` is the share of the belief that the finding takes away."""
        self._kept *= 1.0 - weight
        self._against.append(finding)

    def hypothesis(self, cause: Cause, rule: str) -> Hypothesis | None:
        """The hypothesis, or None without any ground for it."""
        if not self.grounds:
            return None
        return Hypothesis(
            cause=cause,
            confidence=self.confidence,
            rule=rule,
            evidence_for=tuple(self._for),
            evidence_against=tuple(self._against),
        )
