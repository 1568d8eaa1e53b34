"""The engine `worker.queue` at the level of Redis: real workers, a real Redis, executions counted exactly."""
