"""The store: one repository for each aggregate, all of them over one database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.agent.ports.store.accounting import AccountingRepository
from app.agent.ports.store.approvals import ApprovalRepository
from app.agent.ports.store.claims import ClaimRepository
from app.agent.ports.store.figures import FiguresRepository
from app.agent.ports.store.guardrails import BudgetRepository, GuardrailRepository
from app.agent.ports.store.history import HistoryRepository
from app.agent.ports.store.incidents import IncidentRepository
from app.agent.ports.store.intents import IntentRepository
from app.agent.ports.store.notifications import NotificationRepository
from app.agent.ports.store.people import AuditLogRepository, CredentialRepository
from app.agent.ports.store.responders import ResponderRepository
from app.agent.ports.store.signals import SignalRepository
from app.agent.ports.store.statistics import StatisticsRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The repositories of one database, so that intake and incident share a transaction."""

    signals: SignalRepository
    incidents: IncidentRepository
    claims: ClaimRepository
    intents: IntentRepository
    budgets: BudgetRepository
    approvals: ApprovalRepository
    responders: ResponderRepository
    guardrails: GuardrailRepository
    history: HistoryRepository
    accounting: AccountingRepository
    credentials: CredentialRepository
    audit_log: AuditLogRepository
    notifications: NotificationRepository
    figures: FiguresRepository
    statistics: StatisticsRepository
    ping: Callable[[], Coroutine[Any, Any, None]]
    """Writes a row; raises if that fails, or if the database is not the opened one."""
    close: Callable[[], Coroutine[Any, Any, None]]
    """Finishes begun work and closes the database; may be called twice."""
