"""Real processes are killed, frozen and cut off in the middle of an import; what they leave is counted."""
