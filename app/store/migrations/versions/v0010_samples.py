"""Healthy samples in narrow rows, with a ledger of their own.

Only additions: programs of the versions before go on while this is applied and afterwards,
and what they count still adds up. They do not show the samples that newer programs
keep in narrow rows. Newer programs on PostgreSQL keep none while such a program is at work.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_BEFORE = -2
"""The shard of what is counted by the ledger of samples."""


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "samples",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("previous", sa.BigInteger(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("error_rate", sa.Double(), nullable=True),
        sa.Column("p95_latency_ms", sa.Double(), nullable=True),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_samples"),
    )
    op.create_table(
        "sample_ledger",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("forgotten", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "shard", name="pk_sample_ledger"),
    )
    op.add_column("service_levels", sa.Column("newest_sample", sa.BigInteger(), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION samples_are_accounted_for() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF current_setting('heal.forgetting', true) = 'accounted' THEN RETURN OLD; END IF; "
            "RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER samples_kept BEFORE DELETE ON samples "
            "FOR EACH ROW EXECUTE FUNCTION samples_are_accounted_for()"
        )
        # Samples that a downgrade turned into signals keep their ids: no number is given again.
        op.execute(
            "SELECT setval(pg_get_serial_sequence('samples', 'number'), CAST(substr(id, 21) AS bigint))"
            " FROM (SELECT max(id) AS id FROM signals WHERE id < 'sig_g') AS last"
            " WHERE id ~ '^sig_f{16}[0-9]{16}$'"
        )


def downgrade() -> None:
    """The samples become signals, and stay accounted for; a repetition of one is not recognised."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute(_to_signals(postgresql=postgresql))
    op.execute(
        "INSERT INTO intake_ledger (day, shard, accepted)"  # noqa: S608 - constants
        f" SELECT day, {_BEFORE}, sum(accepted) FROM sample_ledger WHERE true GROUP BY day"
        " ON CONFLICT (day, shard) DO UPDATE SET accepted = intake_ledger.accepted + excluded.accepted"
    )
    op.execute(
        "INSERT INTO signal_tally (day, disposition, forgotten)"
        " SELECT day, 'ignored', sum(forgotten) FROM sample_ledger WHERE true GROUP BY day"
        " HAVING sum(forgotten) > 0 ON CONFLICT (day, disposition)"
        " DO UPDATE SET forgotten = signal_tally.forgotten + excluded.forgotten"
    )
    if postgresql:
        op.execute("DROP TRIGGER samples_kept ON samples")
        op.execute("DROP FUNCTION samples_are_accounted_for()")
    op.drop_column("service_levels", "newest_sample")
    op.drop_table("sample_ledger")
    op.drop_table("samples")


def _to_signals(*, postgresql: bool) -> str:
    crash_looping = "CASE WHEN flags & 2 = 0 THEN NULL ELSE {} END".format(
        "false" if postgresql else "json('false')"
    )
    values = f"'error_rate', error_rate, 'p95_latency_ms', p95_latency_ms, 'crash_looping', {crash_looping}"
    if postgresql:
        identity = "'sig_ffffffffffffffff' || lpad(CAST(number AS text), 16, '0')"
        payload, sender, stale = f"json_build_object({values})", "CAST(sender AS json)", "flags & 1 = 1"
        moments = [f"timestamptz 'epoch' + {one} * interval '1 microsecond'" for one in _MOMENTS]
    else:
        identity = "printf('sig_ffffffffffffffff%016d', number)"
        payload, sender, stale = f"json_object({values})", "sender", "flags & 1"
        moments = [
            f"strftime('%Y-%m-%d %H:%M:%S', {one} / 1000000, 'unixepoch') || printf('.%06d', {one} % 1000000)"
            for one in _MOMENTS
        ]
    return (
        "INSERT INTO signals (id, kind, environment, service, source, observed_at, received_at, dedup_key,"  # noqa: S608 - constants
        " stale, payload, disposition, reason, ledgered, sender)"
        f" SELECT {identity}, 'metric', environment, service, 'http', {', '.join(moments)},"
        f" 'sample:' || number, {stale}, {payload}, 'ignored', 'within the SLO', true, {sender}"
        " FROM samples ORDER BY number"
    )


_MOMENTS = ("observed_at", "received_at")
