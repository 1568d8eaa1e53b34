"""One suite for the database and the ledger, run on SQLite, PostgreSQL and MariaDB."""
