"""The protocol as a small state machine: as data first, then by the real functions over a database and a Redis."""
