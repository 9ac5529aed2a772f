"""Writes `docs/reference/` and `deploy/albatros.example.toml` from the code: `python -m scripts.reference`."""
