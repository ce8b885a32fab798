"""`heal db`: backups, restoring, verification and the schema of one database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.agent.audit.accounting import WORK_LEFT, AuditQuestion, SignalAudit, allowed_wait
from app.agent.evidence.format import counted
from app.agent.identity.audit_log import first_broken
from app.agent.ids import JsonObject
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import sqlite_path
from app.config import Settings
from app.store import maintenance, open_store
from app.store.maintenance.files import DatabaseKind, kind_of
from app.terms import slo_thresholds
from app.workers.anchor_writer import all_heads, whole_trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification read, and what it found."""

    signals: SignalAudit
    incidents: int
    decisions: int
    """Of people, in the audit trail."""
    broken_decision: int | None
    """The first entry of the audit trail that breaks the chain."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Each fault of the records in one sentence; none means that they verify."""
        found = [f"{one.kind}  {one.id}  {one.detail}" for one in self.signals.faults]
        found += [f"{more}  there are more" for more in self.signals.strays.more if more not in WORK_LEFT]
        found += [
            f"signals of {day.day}: {day.accepted} accepted, {day.accounted} accounted for"
            for day in self.signals.uneven_days
        ]
        if self.broken_decision is not None:
            found.append(f"the audit trail of people was altered at entry {self.broken_decision}")
        return tuple(found)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"{self.incidents:>10}  incidents: every timeline and its hash chain"
        yield f"{self.decisions:>10}  decisions of people: the hash chain of the audit trail"
        yield f"{self.signals.accepted:>10}  accepted signals, {self.signals.accounted} accounted for"
        waiting = len(self.signals.strays.found) - len(self.signals.faults)
        if waiting:
            left = counted(waiting, "entry", "entries")
            yield f"Work left for an agent: {left}; not a fault of the records."
        for one in self.findings:
            yield f"discrepancy: {one}"
        if not self.findings:
            yield "The records verify."

    def as_json(self) -> JsonObject:
        """The report for programs."""
        return {
            "verified": not self.findings,
            "incidents": self.incidents,
            "decisions": self.decisions,
            "signals_accepted": self.signals.accepted,
            "signals_accounted": self.signals.accounted,
            "findings": list(self.findings),
        }


async def backup(settings: Settings, file: Path) -> str:
    """Write a backup; returns its description."""
    size = await maintenance.back_up(settings.database_url.get_secret_value(), file)
    return (
        f"Backup written to {file}, {size:,} bytes. It holds every record: keep it as safe as the database."
    )


async def restore(settings: Settings, file: Path, *, replace: bool) -> str:
    """Restore a backup; returns what was done."""
    kept = await maintenance.restore(settings.database_url.get_secret_value(), file, replace=replace)
    return f"Restored {file}." + (f" The database that was replaced is {kept}." if kept else "")


async def upgrade(settings: Settings) -> str:
    """Bring the database to the schema of this program; returns from which schema to which."""
    url = settings.database_url.get_secret_value()
    before = await maintenance.schema_of(url)
    await (await open_store(url)).close()
    after = await maintenance.schema_of(url)
    if before is None:
        return f"Database created with schema {after}."
    if before == after:
        return f"The database has schema {after}; nothing to do."
    return f"Database migrated from schema {before} to {after}."


async def verify(settings: Settings, file: Path | None) -> Verified:
    """Check every record of the database, or of a copy of a SQLite backup."""
    if file is None:
        path = sqlite_path(settings)
        if path is not None and not path.is_file():
            raise CommandFailed(f"there is no database {path}")
        return await _verified(settings, settings.database_url.get_secret_value())
    if kind_of(file) is not DatabaseKind.SQLITE:
        raise CommandFailed(
            f"{file} is an archive of pg_dump: restore it into an empty database, which verifies it"
        )
    with tempfile.TemporaryDirectory(prefix="heal-verify-") as folder:
        copy = Path(folder) / "copy.db"
        shutil.copy(file, copy)
        return await _verified(settings, f"sqlite:///{copy}")


async def _verified(settings: Settings, url: str) -> Verified:
    store = await open_store(url)
    try:
        signals = await store.accounting.audit(
            AuditQuestion(
                now=datetime.now(UTC),
                pending_for=allowed_wait(slo_thresholds(settings).longest_gap),
                deep=True,
            )
        )
        trail = await whole_trail(store)
        return Verified(
            signals=signals,
            incidents=len(await all_heads(store)),
            decisions=len(trail),
            broken_decision=first_broken(trail),
        )
    finally:
        await store.close()
