"""What every test can use: `needs` to ask for programs, and the servers of tests/services as fixtures."""

from tests.tools import needs, require

__all__ = ["needs", "require"]

pytest_plugins = [
    "tests.skips",
    "tests.services.databases",
    "tests.services.postgres",
    "tests.services.registry",
    "tests.services.gitea_server",
    "tests.services.garage",
    "tests.services.nomad",
]
