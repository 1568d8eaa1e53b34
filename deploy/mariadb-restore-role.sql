-- MariaDB and MySQL: what a worker may do that brings archived rows back and erases for good (`restore_archived` and
-- `erase_archived`, on a queue of its own: QUEUES=restore). Run it in Holdfast's database as an administrator, and again
-- after each upgrade:
--   mariadb holdfast < deploy/mariadb-restore-role.sql
-- then give it a password: ALTER USER holdfast_restore IDENTIFIED BY '...'; and name it in that worker's DATABASE_URL.
-- For tables of your own add the two lines of tasks and tasks_archive, the same for children that belong to their rows,
-- and the key of what they refer to. The server shows a user no foreign key of a table that he may not see: one that no
-- model has is noticed only where this one may see the child.
CREATE USER IF NOT EXISTS holdfast_restore;

-- Rows come back, or go for good. What is there is not changed.
GRANT SELECT, INSERT, DELETE ON tasks TO holdfast_restore;
GRANT SELECT, DELETE ON tasks_archive TO holdfast_restore;
-- Files are written anew without the rows that leave them.
GRANT SELECT, DELETE, UPDATE (file, row_count, byte_count, sha256) ON archive_parts TO holdfast_restore;
-- Whoever is on the list stays on it.
GRANT SELECT, INSERT ON erasures TO holdfast_restore;
-- Whether a user is still there, and nothing else of him.
GRANT SELECT (id) ON users TO holdfast_restore;

-- Its share of the ledger. The history is moved and pruned by the other workers.
GRANT SELECT, INSERT, UPDATE ON job_runs TO holdfast_restore;
GRANT SELECT, INSERT ON job_attempts TO holdfast_restore;
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_heartbeats TO holdfast_restore;
GRANT SELECT ON job_runs_history TO holdfast_restore;
GRANT SELECT ON controls TO holdfast_restore;
GRANT SELECT ON installation TO holdfast_restore;
GRANT SELECT ON holdfast_alembic_version TO holdfast_restore;
