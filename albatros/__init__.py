"""Albatros: a push becomes one multi-platform image on every registry you named."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("albatros")
except PackageNotFoundError:
    __version__ = "0.0.0+unknown"

__all__ = ["__version__"]
