"""The archive beside one giant transaction, beside an OLTP load, and beside pt-archiver."""
