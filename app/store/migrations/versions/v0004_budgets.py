"""Budgets: whom an intent concerned, where, why and on what evidence, so that counting needs its row alone.

Programs of the versions before go on while this is applied and afterwards. The
intents that they write are completed by the database itself, so that a program
that counts, counts theirs too; what their diagnosis rested on they do not say.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_COLUMNS = ("environment", "service", "namespace", "cause", "evidence")
_COUNTED = "started_at IS NOT NULL AND undoes IS NULL AND namespace IS NOT NULL"
_BEGUN = "started_at IS NOT NULL AND namespace IS NOT NULL"


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("intents", sa.Column(column, sa.Text()))
    _backfill()
    _index("ix_intents_counted", ["started_at", "environment", "service", "namespace", "id"], _COUNTED)
    _index("ix_intents_of_service", ["environment", "service", "started_at"], _BEGUN)
    _complete_what_old_programs_write()


def downgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute("DROP TRIGGER intents_concern" + (" ON intents" if on_postgresql else ""))
    if on_postgresql:
        op.execute("DROP FUNCTION intents_say_whom_they_concern()")
    op.drop_index("ix_intents_of_service", "intents")
    op.drop_index("ix_intents_counted", "intents")
    for column in _COLUMNS:
        op.drop_column("intents", column)


def _index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "intents", columns, sqlite_where=where, postgresql_where=where)


def _backfill() -> None:
    """The cause is that of the incident's last diagnosis, for older ones are not kept."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "UPDATE intents SET environment = i.environment, service = i.service,"
            " namespace = CAST(intents.body AS json) #>> '{action,target,namespace}',"
            " cause = CAST(i.body AS json) #>> '{diagnosis,hypotheses,0,cause}'"
            " FROM incidents i WHERE i.id = intents.incident_id"
        )
        return
    op.execute(f"UPDATE intents SET {_ASSIGNMENTS.format(row='intents')}")  # noqa: S608 - constants


_ASSIGNMENTS = (
    "environment = (SELECT environment FROM incidents WHERE id = {row}.incident_id),"
    " service = (SELECT service FROM incidents WHERE id = {row}.incident_id),"
    " namespace = json_extract({row}.body, '$.action.target.namespace'),"
    " cause = (SELECT json_extract(body, '$.diagnosis.hypotheses[0].cause') FROM incidents"
    " WHERE id = {row}.incident_id)"
)


def _complete_what_old_programs_write() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION intents_say_whom_they_concern() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "SELECT i.environment, i.service, CAST(i.body AS json) #>> '{diagnosis,hypotheses,0,cause}' "
            "INTO NEW.environment, NEW.service, NEW.cause FROM incidents i WHERE i.id = NEW.incident_id; "
            "NEW.namespace := CAST(NEW.body AS json) #>> '{action,target,namespace}'; "
            "RETURN NEW; END $$"
        )
        op.execute(
            "CREATE TRIGGER intents_concern BEFORE INSERT ON intents FOR EACH ROW "
            "WHEN (NEW.environment IS NULL) EXECUTE FUNCTION intents_say_whom_they_concern()"
        )
        return
    op.execute(
        "CREATE TRIGGER intents_concern AFTER INSERT ON intents WHEN NEW.environment IS NULL BEGIN "  # noqa: S608 - constants
        f"UPDATE intents SET {_ASSIGNMENTS.format(row='NEW')} WHERE id = NEW.id; END"
    )
