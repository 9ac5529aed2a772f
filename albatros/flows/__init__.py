"""One business step a file. A flow sees protocols and the database, never a concrete adapter."""
