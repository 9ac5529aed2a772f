"""Executors: where Jobs run."""
