"""Tests of the archive, on three engines."""
