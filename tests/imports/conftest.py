"""Fixtures of the tests of the import: those of the command line."""

from tests.cli.conftest import data_dir, migrated_file, tables

__all__ = ["data_dir", "migrated_file", "tables"]
