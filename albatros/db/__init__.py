"""The database: the queue and the truth. One code path for SQLite (WAL) and PostgreSQL."""
