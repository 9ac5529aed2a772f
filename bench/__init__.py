"""Measurements of the real server. `python -m bench` runs them; docs/performance.md keeps the results."""
