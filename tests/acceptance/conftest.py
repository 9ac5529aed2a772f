"""Lines for acceptance tests: one that a module shares, with repos of their own, and one for a single test."""

from collections.abc import Iterator

import pytest

from tests.services.registry import RegistryServer, start_registry
from tests.support.line import Line, make_line
from tests.tools import require


@pytest.fixture(scope="module")
def hub() -> Iterator[RegistryServer]:
    """A distribution registry for the tests of a module."""
    with start_registry() as server:
        yield server


@pytest.fixture(scope="module")
def shared(hub: RegistryServer) -> Iterator[Line]:
    """A running server for tests that neither stop it nor fill it: each has a repo of its own."""
    require("nix", "git", "skopeo")
    with make_line(hub) as line:
        line.server.start()
        yield line


@pytest.fixture
def line(hub: RegistryServer) -> Iterator[Line]:
    """A line of its own for one test, not started; the registry is the module's, so its image name has to differ."""
    require("nix", "git", "skopeo")
    with make_line(hub) as own:
        yield own
