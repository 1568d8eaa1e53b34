"""The migrated databases of the conformance suite."""

from tests.databases.conftest import manager, migrated_mariadb, migrated_postgresql, migrated_sqlite, settings

__all__ = ["manager", "migrated_mariadb", "migrated_postgresql", "migrated_sqlite", "settings"]
