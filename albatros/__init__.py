"""Albatros: a push becomes one multi-platform image on every registry you named."""

__version__ = "0.1.0"
"""The package's version is read from here when it is built: asking its metadata at run time takes longer than importing
most commands.
"""
