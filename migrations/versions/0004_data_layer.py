"""The data layer: indexes for the queries of tasks; on SQLite, checks of what the other engines check by themselves.

An expanding step: workers of the version before go on working beside it.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DELETED = sa.text("is_deleted")
CHECKS = {
    "users": {
        "username_length": "length(username) <= 150",
        "email_length": "length(email) <= 255",
        "full_name_length": "length(full_name) <= 255",
        "hashed_password_length": "length(hashed_password) <= 255",
    },
    "tasks": {
        "title_length": "length(title) <= 255",
        "external_key_length": "length(external_key) <= 255",
        "created_by_length": "length(created_by) <= 150",
        "updated_by_length": "length(updated_by) <= 150",
        "metadata_json_json": "metadata_json IS NULL OR json_valid(metadata_json)",
        "tags_json": "tags IS NULL OR json_valid(tags)",
    },
}
"""What the other engines check by themselves."""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for table, checks in CHECKS.items():
            with op.batch_alter_table(table) as batch:
                for name, rule in checks.items():
                    batch.create_check_constraint(op.f(f"ck_{table}_{name}"), sa.text(rule))
                if table == "tasks":
                    batch.alter_column("metadata_json", type_=sa.Text(), existing_nullable=True)
                    batch.alter_column("tags", type_=sa.Text(), existing_nullable=True)
    # Where tasks are many, make these beforehand with CREATE INDEX CONCURRENTLY, which locks nobody out.
    there = True if op.get_context().dialect.name == "postgresql" else None
    op.create_index("ix_tasks_user_id_status_id", "tasks", ["user_id", "status", "id"], if_not_exists=there)
    op.create_index("ix_tasks_status_id", "tasks", ["status", "id"], if_not_exists=there)
    op.create_index(
        "ix_tasks_deleted_at_id",
        "tasks",
        ["deleted_at", "id"],
        if_not_exists=there,
        postgresql_where=DELETED,
        sqlite_where=DELETED,
    )
    op.drop_index("ix_tasks_user_id", "tasks")  # the first of the new ones begins with the same column


def downgrade() -> None:
    op.create_index("ix_tasks_user_id", "tasks", ["user_id"])
    for name in ("ix_tasks_deleted_at_id", "ix_tasks_status_id", "ix_tasks_user_id_status_id"):
        op.drop_index(name, "tasks")
    if op.get_context().dialect.name == "sqlite":
        for table, checks in CHECKS.items():
            with op.batch_alter_table(table) as batch:
                for name in checks:
                    batch.drop_constraint(op.f(f"ck_{table}_{name}"), type_="check")
                if table == "tasks":
                    batch.alter_column("metadata_json", type_=sa.JSON(), existing_nullable=True)
                    batch.alter_column("tags", type_=sa.JSON(), existing_nullable=True)
