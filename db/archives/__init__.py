"""Moving rows between a table, its archive and files, by their mapped definition. No policy: jobs decide what goes."""
