"""What doctor says of a Nomad, simulated and real: each thing that the executor will do is tried."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.cli import main
from albatros.cli.doctor_forges import Verdict
from albatros.cli.doctor_nomad import check
from albatros.settings import NomadSettings
from tests.services.nomad import NomadServer
from tests.support.nomad_jobs import JOB_ID, register
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
    assert [verdict for verdict, _ in told] == [Verdict.OK] * 4 + [Verdict.NOTE, Verdict.OK]
    assert "1 node takes work: x86_64-linux" in told[3][1]
    assert "nix_sandbox" in told[4][1]
    assert "follow events" in told[5][1]


def test_a_token_that_may_nothing_is_told_what_it_lacks(nomad: World) -> None:
    told = findings(nomad.url, "")
    missing = [text for verdict, text in told if verdict is Verdict.MISSING]
    # A stream that is refused says nothing for half a minute, so it is not asked for.
    asked = ("write variable", "list jobs", "list nodes")
    assert [what in text and "403" in text for what, text in zip(asked, missing, strict=True)] == [True] * 3


def test_a_nomad_that_is_away_is_asked_once() -> None:
    ((verdict, text),) = findings("http://127.0.0.1:1", "")
    assert verdict is Verdict.MISSING
    assert "could not be asked" in text


def test_a_nomad_without_acls_is_refused_unless_that_is_allowed() -> None:
    with nomad_world("simulated", clients=1) as world:
        ((verdict, text),) = findings(world.url, "")
        assert (verdict, "nomad.without_acl = true" in text) == (Verdict.MISSING, True)
        assert findings(world.url, "", without_acl=True)[0][0] is Verdict.OK


def test_each_builder_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "albatros.toml"
    with nomad_world("simulated", clients=1) as world:
        register(NomadServer(world.url, "", {}))
        config.write_text(
            f'''
            server.data = "{tmp_path}/data"
            nomad = {{ addresses = ["{world.url}"], without_acl = true }}
            forges = [{{ name = "a-forge-of-length", kind = "git", url = "{tmp_path}", webhook_secret = "a-secret" }}]
            [[builders]]
            name = "house"
            job = "{JOB_ID}"
            forge = "a-forge-of-length"
            repos = ["*"]
            [[builders]]
            name = "lab"
            job = "nowhere"
            forge = "a-forge-of-length"
            repos = ["*"]
            '''
        )
        assert main(["doctor", "--config", str(config)]) == 1
    said = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert ["ok", "builder", "house", f"can be dispatched to: job {JOB_ID}"] in said
    assert [words[0] for words in said if words[1:3] == ["builder", "lab"]] == ["missing"]
    assert ["ok", "forge", "a-forge-of-length"] in [words[:3] for words in said]
    assert ["ok", "database"] in [words[:2] for words in said]
