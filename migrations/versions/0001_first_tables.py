"""The first tables: users, tasks, the ledger, the rejects and the heartbeats.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime, json_column_type, long_text_type, utc_now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_import_rejects()
    _create_job_runs()
    _create_users()
    _create_worker_heartbeats()
    _create_job_attempts()
    _create_tasks()


def downgrade() -> None:
    op.drop_table("tasks")
    op.drop_table("job_attempts")
    op.drop_table("worker_heartbeats")
    op.drop_table("users")
    op.drop_table("job_runs")
    op.drop_table("import_rejects")


def _create_import_rejects() -> None:
    op.create_table(
        "import_rejects",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("column_name", sa.String(length=255), nullable=True),
        sa.Column("code", sa.String(length=50), nullable=False),
        sa.Column("reason", long_text_type(), nullable=False),
        sa.Column("raw", long_text_type(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "line", name=op.f("pk_import_rejects")),
    )


def _create_job_runs() -> None:
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=100), nullable=False),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("request", json_column_type(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=30), nullable=True),
        sa.Column("enqueued_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("dispatched_at", UtcDateTime(), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.String(length=100), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("cursor", json_column_type(), nullable=True),
        sa.Column("counters", json_column_type(), nullable=True),
        sa.Column("report", json_column_type(), nullable=True),
        sa.Column("error", json_column_type(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_runs")),
        sa.UniqueConstraint("queue", "job_id", "enqueued_at", name=op.f("uq_job_runs_queue_job_id_enqueued_at")),
    )
    op.create_index(op.f("ix_job_runs_kind_enqueued_at"), "job_runs", ["kind", "enqueued_at"])
    op.create_index(op.f("ix_job_runs_state_due_at"), "job_runs", ["state", "due_at"])


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(length=150), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("full_name", sa.String(length=255), nullable=True),
        sa.Column("hashed_password", sa.String(length=255), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("is_superuser", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )


def _create_worker_heartbeats() -> None:
    op.create_table(
        "worker_heartbeats",
        sa.Column("worker_id", sa.String(length=100), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queue_home", sa.String(length=255), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("heartbeat_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker_heartbeats")),
    )
    op.create_index(op.f("ix_worker_heartbeats_heartbeat_at"), "worker_heartbeats", ["heartbeat_at"])


def _create_job_attempts() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(length=100), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("error", json_column_type(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["job_runs.id"], name=op.f("fk_job_attempts_run_id_job_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "fence", name=op.f("pk_job_attempts")),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", long_text_type(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "IN_PROGRESS",
                "COMPLETED",
                "CANCELLED",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            server_default="PENDING",
            nullable=False,
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("external_key", sa.String(length=255), nullable=True),
        sa.Column("import_run_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.Column("created_by", sa.String(length=150), nullable=True),
        sa.Column("updated_by", sa.String(length=150), nullable=True),
        sa.Column("metadata_json", json_column_type(), nullable=True),
        sa.Column("tags", json_column_type(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tasks_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("external_key", name=op.f("uq_tasks_external_key")),
    )
    op.create_index(op.f("ix_tasks_user_id"), "tasks", ["user_id"])
