"""The tasks that docs/archive.md works with."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import insert

from db.models import Task, User
from tests.cli.tables import Tables

TITLES = ("Send the invoice", "Call Ada", "Buy paper", "Send the invoice again", "Plan the summer", "Repair the door")
USER = UUID("0198c0de-0000-7000-8000-0000000000ff")


def fill(data_dir: Path) -> None:
    """Make a database with six tasks, of which the first four were soft-deleted half a year ago."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    tables, deleted_at = Tables.embedded(data_dir), datetime.now(UTC) - timedelta(days=180)
    tables.upgrade()
    rows = [
        {
            "id": UUID(f"0198c0de-0000-7000-8000-{number:012}"),
            "title": title,
            "external_key": f"KEY-{number}",
            "user_id": USER,
            "is_deleted": number <= 4,
            "deleted_at": deleted_at if number <= 4 else None,
        }
        for number, title in enumerate(TITLES, start=1)
    ]
    tables.change(insert(User).values(id=USER, username="ada"), insert(Task).values(rows))
