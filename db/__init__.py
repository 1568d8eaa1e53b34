"""Tables, sessions and queries. No business rules, no jobs."""
