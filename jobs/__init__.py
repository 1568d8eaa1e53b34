"""What can be done: the job kinds, their registry and the context of a run."""
