"""What every test can use: `needs` to ask for programs, and the servers of tests/services as fixtures."""

from hypothesis import settings

from tests.tools import needs, require

__all__ = ["needs", "require"]

# The same examples in every run; `--hypothesis-profile default` looks at others.
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")

pytest_plugins = [
    "tests.skips",
    "tests.services.databases",
    "tests.services.postgres",
    "tests.services.registry",
    "tests.services.gitea_server",
    "tests.services.garage",
    "tests.services.nomad",
]
