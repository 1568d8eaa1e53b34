"""Archives: one for tasks, the files of archives, what must not come back, and the shares of a run's connections.

Revision ID: 0005
Revises: 0004
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.archive_tables import archive_parts
from db.types import UtcDateTime, json_column_type, long_text_type

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TASK_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("id", sa.Uuid()),
    sa.Column("title", sa.String(255)),
    sa.Column("description", long_text_type()),
    sa.Column("status", sa.String(20)),
    sa.Column("user_id", sa.Uuid()),
    sa.Column("completed_at", UtcDateTime()),
    sa.Column("external_key", sa.String(255)),
    sa.Column("import_run_id", sa.Uuid()),
    sa.Column("is_deleted", sa.Boolean()),
    sa.Column("deleted_at", UtcDateTime()),
    sa.Column("created_by", sa.String(150)),
    sa.Column("updated_by", sa.String(150)),
    sa.Column("metadata_json", json_column_type().with_variant(sa.Text(), "sqlite")),
    sa.Column("tags", json_column_type().with_variant(sa.Text(), "sqlite")),
    sa.Column("created_at", UtcDateTime()),
    sa.Column("updated_at", UtcDateTime()),
)
"""What a task is at this revision."""


def upgrade() -> None:
    op.create_table("tasks_archive", *archive_parts("tasks_archive", TASK_COLUMNS, key=("id",)))
    op.create_table(
        "archive_parts",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("table_name", sa.String(255), nullable=False),
        sa.Column("file", sa.String(255), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("written_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_archive_parts"),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("table_name", sa.String(255), nullable=False),
        sa.Column("row_key", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("erased_at", UtcDateTime(), nullable=False),
        sa.Column("erased_by", sa.String(150)),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.UniqueConstraint("table_name", "row_key", name="uq_erasures_table_name_row_key"),
    )
    op.create_table(
        "job_run_ranges",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cursor", json_column_type(), nullable=False),
        sa.Column("counters", json_column_type(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_job_run_ranges"),
    )


def downgrade() -> None:
    for table in ("job_run_ranges", "erasures", "archive_parts", "tasks_archive"):
        op.drop_table(table)
