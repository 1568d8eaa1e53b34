"""The import as a user meets it on the command line, with good input and with bad."""
