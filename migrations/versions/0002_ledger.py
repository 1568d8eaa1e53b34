"""The ledger for good: unique keys, cancellation, controls, what workers do, the installation, a history of runs.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime, json_column_type

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIVE = sa.text("state IN ('waiting', 'running')")
NEW_COLUMNS: dict[str, Any] = {
    "unique_key": sa.String(200),
    "duplicate_of": sa.Uuid(),
    "cancel_requested_at": UtcDateTime(),
    "live_key": sa.String(255),
}
HEARTBEAT_COLUMNS = ("state", "state_since", "queues")
STORAGE = {
    "fillfactor": "70",
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_threshold": "500",
    "autovacuum_vacuum_cost_delay": "0",
}
KEPT_COLUMNS = (
    "id",
    "kind",
    "queue",
    "job_id",
    "request",
    "state",
    "reason",
    "enqueued_at",
    "due_at",
    "dispatched_at",
    "fence",
    "attempts",
    "crashes",
    "worker_id",
    "started_at",
    "finished_at",
    "cursor",
    "counters",
    "report",
    "error",
)


def upgrade() -> None:
    with op.batch_alter_table("job_attempts") as batch:
        batch.drop_constraint("fk_job_attempts_run_id_job_runs", type_="foreignkey")
    for name in ("ix_job_runs_state_due_at", "ix_job_runs_kind_enqueued_at"):
        op.drop_index(name, "job_runs")
    with op.batch_alter_table("job_runs") as batch:
        for name, column_type in NEW_COLUMNS.items():
            batch.add_column(sa.Column(name, column_type))
        batch.create_unique_constraint("uq_job_runs_live_key", ["live_key"])
        # The job id first: a planner without statistics takes the first column for selective, and a queue is not.
        batch.drop_constraint("uq_job_runs_queue_job_id_enqueued_at", type_="unique")
        batch.create_unique_constraint("uq_job_runs_job_id_queue_enqueued_at", ["job_id", "queue", "enqueued_at"])
    op.create_index("ix_job_runs_live", "job_runs", ["state", "queue", "id"], postgresql_where=LIVE, sqlite_where=LIVE)
    create_history()
    with op.batch_alter_table("worker_heartbeats") as batch:
        batch.add_column(sa.Column("state", sa.String(10), server_default="ready", nullable=False))
        batch.add_column(sa.Column("state_since", UtcDateTime()))
        batch.add_column(sa.Column("queues", json_column_type()))
    op.create_table(
        "controls",
        sa.Column("scope", sa.String(10), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("paused_at", UtcDateTime()),
        sa.Column("max_running", sa.Integer()),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_controls"),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("server", sa.String(500), nullable=False),
        sa.Column("adopted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    if op.get_context().dialect.name == "postgresql":
        settings = ", ".join(f"{name} = {value}" for name, value in STORAGE.items())
        op.execute(f"ALTER TABLE job_runs SET ({settings})")
        # Rows outside the months that the workers make partitions for; it stays empty in daily life.
        op.execute("CREATE TABLE job_runs_history_default PARTITION OF job_runs_history DEFAULT")


def create_history() -> None:
    op.create_table(
        "job_runs_history",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("request", json_column_type(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(30)),
        sa.Column("enqueued_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("dispatched_at", UtcDateTime()),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.String(100)),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("cursor", json_column_type()),
        sa.Column("counters", json_column_type()),
        sa.Column("report", json_column_type()),
        sa.Column("error", json_column_type()),
        sa.Column("unique_key", sa.String(200)),
        sa.Column("duplicate_of", sa.Uuid()),
        sa.Column("cancel_requested_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs_history"),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("ix_job_runs_history_job_id_queue", "job_runs_history", ["job_id", "queue"])
    op.create_index("ix_job_runs_history_kind_state_id", "job_runs_history", ["kind", "state", "id"])


def downgrade() -> None:
    runs, history = (sa.table(name, *map(sa.column, KEPT_COLUMNS)) for name in ("job_runs", "job_runs_history"))
    op.execute(sa.insert(runs).from_select(list(KEPT_COLUMNS), sa.select(history)))
    for name in ("job_runs_history", "controls", "installation"):
        op.drop_table(name)
    with op.batch_alter_table("worker_heartbeats") as batch:
        for name in HEARTBEAT_COLUMNS:
            batch.drop_column(name)
    op.drop_index("ix_job_runs_live", "job_runs")
    with op.batch_alter_table("job_runs") as batch:
        batch.drop_constraint("uq_job_runs_live_key", type_="unique")
        batch.drop_constraint("uq_job_runs_job_id_queue_enqueued_at", type_="unique")
        batch.create_unique_constraint("uq_job_runs_queue_job_id_enqueued_at", ["queue", "job_id", "enqueued_at"])
        for name in NEW_COLUMNS:
            batch.drop_column(name)
    op.create_index("ix_job_runs_state_due_at", "job_runs", ["state", "due_at"])
    op.create_index("ix_job_runs_kind_enqueued_at", "job_runs", ["kind", "enqueued_at"])
    op.execute("DELETE FROM job_attempts WHERE run_id NOT IN (SELECT id FROM job_runs)")
    with op.batch_alter_table("job_attempts") as batch:
        batch.create_foreign_key("fk_job_attempts_run_id_job_runs", "job_runs", ["run_id"], ["id"], ondelete="CASCADE")
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE job_runs RESET ({', '.join(STORAGE)})")
