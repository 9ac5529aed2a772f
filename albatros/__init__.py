"""Albatros: a push becomes one multi-platform image on every registry you named."""

from __future__ import annotations

__version__: str
__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """The version, looked up when somebody asks for it: the look-up takes longer to import than most commands run."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - as said above

    try:
        return version("albatros")
    except PackageNotFoundError:
        return "0.0.0+unknown"
