"""The disposition of a signal: open an incident, join one, wait, or be ignored, with the reason.

`Intake.accept` is the only entry point for HTTP, webhooks, pollers and watchers. The
decision is pure and runs inside the store's transaction, so that a signal and its
disposition are durable together (promise 9).
"""

from app.agent.intake.accepting import Intake
from app.agent.intake.rules import IntakeRules
from app.agent.intake.samples import LONGEST_RHYTHM

__all__ = ["LONGEST_RHYTHM", "Intake", "IntakeRules"]
