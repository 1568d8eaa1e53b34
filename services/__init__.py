"""Business rules over the repositories. A service takes a session, flushes, and never commits."""
