"""Forges: signature, payload and API of each kind in one file."""
