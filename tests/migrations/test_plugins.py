"""Models and migrations of another package, by HOLDFAST_PLUGINS alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import CHECKOUT, clean_environment

PLUGIN = """
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import SoftDeleteModel
from db.models import User

MIGRATIONS = "revisions"


class BillingInvoice(SoftDeleteModel):
    number: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id))


MODELS = [BillingInvoice]
"""
FIRST = """
import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime, utc_now

revision, down_revision, branch_labels, depends_on = "b1", None, None, None


def upgrade() -> None:
    op.create_table(
        "billing_invoice",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("is_deleted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("deleted_at", UtcDateTime()),
        sa.Column("created_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), server_default=utc_now(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_billing_invoice_user_id_users"),
    )


def downgrade() -> None:
    op.drop_table("billing_invoice")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "b2", "b1", None, None


def upgrade() -> None:
    with op.batch_alter_table("billing_invoice") as batch:
        batch.add_column(sa.Column("number", sa.String(255), nullable=False))
        batch.create_unique_constraint("uq_billing_invoice_number", ["number"])
        if op.get_context().dialect.name == "sqlite":
            batch.create_check_constraint(op.f("ck_billing_invoice_number_length"), "length(number) <= 255")


def downgrade() -> None:
    with op.batch_alter_table("billing_invoice") as batch:
        batch.drop_constraint("uq_billing_invoice_number", type_="unique")
        if op.get_context().dialect.name == "sqlite":
            batch.drop_constraint(op.f("ck_billing_invoice_number_length"), type_="check")
        batch.drop_column("number")
"""
# One process for all commands of a test: its imports take longer than they do.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from worker.cli import main

ended = [CliRunner().invoke(main, command.split()) for command in sys.argv[1:]]
print(json.dumps([[one.exit_code, one.stdout, one.stderr] for one in ended]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "packages" / "billing"
    (folder / "revisions").mkdir(parents=True)
    (folder / "__init__.py").write_text(PLUGIN)
    (folder / "revisions" / "b1_first.py").write_text(FIRST)
    (folder / "revisions" / "b2_number.py").write_text(SECOND)
    return folder


def run(package: Path, *commands: str, **settings: str) -> list[tuple[int, str, str]]:
    environment = clean_environment(
        HOLDFAST_PLUGINS="billing", HOLDFAST_DATA_DIR=str(package.parent / "data"), LOG_LEVEL="error", **settings
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), str(package.parent)])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *commands], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def test_a_plugins_models_and_migrations(package: Path, database_url: str) -> None:
    steps = run(
        package,
        "db upgrade --json",
        "db check --json",
        "db downgrade b1 --plugin billing --json",
        "runs list",
        "db check --json",
        "db seed --users 1 --tasks 3 --json",
        "db upgrade --json",
        "db seed --users 1 --tasks 3 --json",
        "db downgrade base --json",
        "db current --json",
        DATABASE_URL=database_url,
    )
    codes = [code for code, _, _ in steps]
    assert codes == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1], steps
    documents: list[dict[str, Any]] = [json.loads(out) if out else {} for _, out, _ in steps]
    at_head = [{"plugin": "billing", "revision": "b2", "newest": "b2"}]
    assert (documents[0]["plugins"], documents[0]["up_to_date"]) == (at_head, True)
    assert documents[1]["differences"] == []
    assert documents[2]["plugins"][0]["revision"] == "b1"
    assert steps[3][2] == (
        "error: the database is at revision b1 but billing needs b2: run `python -m worker db upgrade`\n"
    )
    assert "billing_invoice lacks the column number" in documents[4]["differences"]
    assert documents[6]["plugins"] == at_head
    assert (documents[9]["revision"], documents[9]["plugins"][0]["revision"]) == (None, None)


def test_wrong_plugins_are_named(package: Path) -> None:
    ((code, _, err),) = run(package, "db downgrade b1 --plugin other")
    assert (code, err) == (
        2,
        "error: other has no migrations: name a module of HOLDFAST_PLUGINS that has MIGRATIONS\n",
    )
    (package / "__init__.py").write_text("MIGRATIONS = 'nowhere'\n")
    ((code, _, err),) = run(package, "db upgrade")
    message = "HOLDFAST_PLUGINS=billing: MIGRATIONS=nowhere is no folder; name that of its revisions"
    assert (code, err) == (2, f"error: {message}\n")
    (package / "__init__.py").write_text("MODELS = ['invoices']\n")
    ((code, _, err),) = run(package, "db upgrade")
    message = "HOLDFAST_PLUGINS=billing: 'invoices' in MODELS is no model; list the classes with a table"
    assert (code, err) == (2, f"error: {message}\n")
