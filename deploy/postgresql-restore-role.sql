-- PostgreSQL: what a worker may do that brings archived rows back and erases for good (`restore_archived` and
-- `erase_archived`, on a queue of its own: QUEUES=restore). Run it as the tables' owner, and again after each upgrade:
--   psql --set ON_ERROR_STOP=1 --file deploy/postgresql-restore-role.sql holdfast
-- then give it a password: ALTER ROLE holdfast_restore PASSWORD '...'; and name it in that worker's DATABASE_URL.
-- For tables of your own add the two lines of tasks and tasks_archive, the same for children that belong to their rows,
-- and the key of what they refer to.
DO $$ BEGIN CREATE ROLE holdfast_restore LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA public TO holdfast_restore;

-- Rows come back, or go for good. What is there is not changed: a lock needs UPDATE on some column.
GRANT SELECT, INSERT, DELETE, UPDATE (updated_at) ON tasks TO holdfast_restore;
GRANT SELECT, DELETE, UPDATE (archived_at) ON tasks_archive TO holdfast_restore;
-- Files are written anew without the rows that leave them.
GRANT SELECT, DELETE, UPDATE (file, row_count, byte_count, sha256) ON archive_parts TO holdfast_restore;
-- Whoever is on the list stays on it.
GRANT SELECT, INSERT ON erasures TO holdfast_restore;
-- Whether a user is still there, and nothing else of him.
GRANT SELECT (id) ON users TO holdfast_restore;

-- Its share of the ledger. The history is moved and pruned by the other workers, which own the tables.
GRANT SELECT, INSERT, UPDATE ON job_runs TO holdfast_restore;
GRANT SELECT, INSERT ON job_attempts TO holdfast_restore;
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_heartbeats TO holdfast_restore;
GRANT SELECT ON job_runs_history, controls, installation, holdfast_alembic_version TO holdfast_restore;
