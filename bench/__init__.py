"""Measures against peers, in ratios: both sides run in turn, on the same machine and server."""
