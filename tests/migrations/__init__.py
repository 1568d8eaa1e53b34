"""The migrations, forth and back, on SQLite, PostgreSQL and MariaDB."""
