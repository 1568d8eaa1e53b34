-- PostgreSQL: what a worker may do that only archives (`archive_deleted`, on a queue of its own: QUEUES=archive).
-- Run it as the tables' owner, and again after each upgrade:
--   psql --set ON_ERROR_STOP=1 --file deploy/postgresql-archive-role.sql holdfast
-- then give it a password: ALTER ROLE holdfast_archive PASSWORD '...'; and name it in that worker's DATABASE_URL.
-- For tables of your own add the two lines of tasks and tasks_archive; children that follow their parent are two more.
DO $$ BEGIN CREATE ROLE holdfast_archive LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA public TO holdfast_archive;

-- Rows leave, and nothing else happens to them. A lock needs UPDATE on some column: the one that tells least.
GRANT SELECT, DELETE, UPDATE (updated_at) ON tasks TO holdfast_archive;
-- What is archived can be neither changed nor taken away.
GRANT SELECT, INSERT ON tasks_archive, archive_parts TO holdfast_archive;

-- Its share of the ledger. The history is moved and pruned by the other workers, which own the tables.
GRANT SELECT, INSERT, UPDATE ON job_runs TO holdfast_archive;
GRANT SELECT, INSERT ON job_attempts TO holdfast_archive;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_run_ranges, worker_heartbeats TO holdfast_archive;
GRANT SELECT ON job_runs_history, controls, installation, holdfast_alembic_version TO holdfast_archive;

-- Only so does it see how far replicas lag:
-- GRANT pg_monitor TO holdfast_archive;
