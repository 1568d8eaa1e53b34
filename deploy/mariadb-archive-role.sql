-- MariaDB and MySQL: what a worker may do that only archives (`archive_deleted`, on a queue of its own: QUEUES=archive).
-- Run it in Holdfast's database as an administrator, and again after each upgrade:
--   mariadb holdfast < deploy/mariadb-archive-role.sql
-- then give it a password: ALTER USER holdfast_archive IDENTIFIED BY '...'; and name it in that worker's DATABASE_URL.
-- For tables of your own add the two lines of tasks and tasks_archive; children that follow their parent are two more.
-- The server shows a user no foreign key of a table that he may not see: one that no model has is noticed only where this
-- one may see the child.
CREATE USER IF NOT EXISTS holdfast_archive;

-- Rows leave, and nothing else happens to them.
GRANT SELECT, DELETE ON tasks TO holdfast_archive;
-- What is archived can be neither changed nor taken away.
GRANT SELECT, INSERT ON tasks_archive TO holdfast_archive;
GRANT SELECT, INSERT ON archive_parts TO holdfast_archive;

-- Its share of the ledger. The history is moved and pruned by the other workers.
GRANT SELECT, INSERT, UPDATE ON job_runs TO holdfast_archive;
GRANT SELECT, INSERT ON job_attempts TO holdfast_archive;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_run_ranges TO holdfast_archive;
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_heartbeats TO holdfast_archive;
GRANT SELECT ON job_runs_history TO holdfast_archive;
GRANT SELECT ON controls TO holdfast_archive;
GRANT SELECT ON installation TO holdfast_archive;
GRANT SELECT ON holdfast_alembic_version TO holdfast_archive;
