"""The line on a Nomad, simulated and real, on SQLite and PostgreSQL, with a proxy in between."""

from collections.abc import Iterator
from itertools import product

import pytest

from tests.support.chaos import Chaos, open_chaos
from tests.support.nomad_worlds import KINDS
from tests.tools import require


@pytest.fixture(params=product(KINDS, ("sqlite", "postgresql")), ids="-".join)
def chaos(request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """A line whose server was not started."""
    kind, database = request.param
    require("git", *(("nomad", "nix") if kind == "real" else ()))
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    with open_chaos(kind, url) as opened:
        yield opened


@pytest.fixture(params=("sqlite", "postgresql"))
def simulated(request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """The same with a simulated Nomad, for what no handle of a real one does."""
    require("git")
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with open_chaos("simulated", url) as opened:
        yield opened
