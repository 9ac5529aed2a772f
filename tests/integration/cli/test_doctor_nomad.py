"""What doctor says of a Nomad, simulated and real: each thing that the executor will do is tried."""

from collections.abc import Iterator

import pytest

from albatros.cli.doctor_forges import Verdict
from albatros.cli.doctor_nomad import check
from albatros.settings import NomadSettings
from tests.support.nomad_worlds import KINDS, RealWorld, SimulatedWorld, nomad_world

World = RealWorld | SimulatedWorld


@pytest.fixture(scope="module", params=KINDS)
def nomad(request: pytest.FixtureRequest) -> Iterator[World]:
    with nomad_world(request.param, clients=1, acl=True) as world:
        yield world


def findings(url: str, token: str, **changes: object) -> list[tuple[Verdict, str]]:
    settings = NomadSettings.model_validate({"addresses": [url], "token": token, **changes})
    return [(found.verdict, found.text) for found in check(settings)]


def test_a_good_token_may_do_everything(nomad: World) -> None:
    told = findings(nomad.url, nomad.token)
    assert [verdict for verdict, _ in told] == [Verdict.OK] * 5 + [Verdict.NOTE]
    assert "1 nodes take work: x86_64-linux" in told[4][1]
    assert "nix_sandbox" in told[5][1]


def test_a_token_that_may_nothing_is_told_what_it_lacks(nomad: World) -> None:
    told = findings(nomad.url, "")
    missing = [text for verdict, text in told if verdict is Verdict.MISSING]
    assert any("write variable" in text and "403" in text for text in missing)


def test_a_nomad_that_is_away_is_asked_once() -> None:
    ((verdict, text),) = findings("http://127.0.0.1:1", "")
    assert verdict is Verdict.MISSING
    assert "could not be asked" in text


def test_a_nomad_without_acls_is_refused_unless_that_is_allowed() -> None:
    with nomad_world("simulated", clients=1) as world:
        ((verdict, text),) = findings(world.url, "")
        assert (verdict, "nomad.without_acl = true" in text) == (Verdict.MISSING, True)
        assert findings(world.url, "", without_acl=True)[0][0] is Verdict.OK
