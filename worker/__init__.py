"""Runs the jobs: the arq worker, its command line, ledger and queue."""
