"""arq's own tests, run with our worker in the place of arq's; nothing of arq is kept here."""
