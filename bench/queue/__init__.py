"""How fast the queue is, beside stock arq; README.md tells how to run it."""
