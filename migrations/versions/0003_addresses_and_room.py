"""A ledger is known by its server and its addresses, and its pages have room for a change of each row.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

from db.types import json_column_type

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("installation", sa.Column("addresses", json_column_type()))
    # What was kept of the server does not tell what is compared now: the next worker adopts the ledger where it stands.
    op.execute("UPDATE installation SET server = ''")
    _set_fillfactor(50)


def downgrade() -> None:
    _set_fillfactor(70)
    with op.batch_alter_table("installation") as batch:
        batch.drop_column("addresses")
    op.execute("DELETE FROM installation")


def _set_fillfactor(percent: int) -> None:
    # That a run is dispatched is noted in its own page, which spares every index an entry.
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE job_runs SET (fillfactor = {percent})")
