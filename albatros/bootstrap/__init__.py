"""The one place where adapters are built from settings and wired into a server."""

from albatros.bootstrap.adapters import build_builder, build_forge, build_hooks, open_store, registry_opener
from albatros.bootstrap.server import Server

__all__ = ["Server", "build_builder", "build_forge", "build_hooks", "open_store", "registry_opener"]
