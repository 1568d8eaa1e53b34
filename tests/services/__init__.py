"""The rules of users and tasks, on each engine."""
