"""Figures of Albatros: `python -m bench` measures, and writes a table and the JSON behind it."""
