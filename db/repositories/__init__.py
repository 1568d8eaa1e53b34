"""Queries, a file for each table. Each takes the session first, flushes and never commits."""
