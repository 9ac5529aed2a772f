"""A Nomad that speaks with nobody but who has a certificate of its authority, asked in every way that we ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.cli.doctor_forges import Verdict
from albatros.cli.doctor_nomad import check
from albatros.settings import NomadSettings
from tests.services.nomad import TLS_HOSTS, NomadServer, start_dev
from tests.support.tls import Authority
from tests.tools import needs, require

pytestmark = needs("nomad")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nomad-tls")


@pytest.fixture(scope="module")
def authority(home: Path) -> Authority:
    return Authority(home)


@pytest.fixture(scope="module")
def nomad(authority: Authority) -> Iterator[NomadServer]:
    require("nomad")
    with start_dev(acl=True, tls=authority.issue("nomad", TLS_HOSTS)) as server:
        yield server


def findings(nomad: NomadServer, ca: Path, certificate: Path | None = None, key: Path | None = None) -> list[str]:
    """What doctor misses: it makes plain calls and pages through python-nomad and httpx, and opens a stream."""
    own = {"cert_file": str(certificate), "key_file": str(key)} if certificate else {}
    settings = {"addresses": [nomad.url], "token": nomad.token, "ca_file": str(ca), **own}
    told = list(check(NomadSettings.model_validate(settings)))
    assert told
    return [found.text for found in told if found.verdict is Verdict.MISSING]


def test_with_a_certificate_of_its_authority_everything_is_answered(nomad: NomadServer, authority: Authority) -> None:
    ours = authority.issue("albatros")
    assert findings(nomad, ours.ca, ours.certificate, ours.key) == []


def test_without_a_certificate_nothing_is(nomad: NomadServer, authority: Authority) -> None:
    (missing,) = findings(nomad, authority.certificate)
    assert "could not be asked to read its own token" in missing


def test_a_certificate_of_another_authority_is_worth_nothing(nomad: NomadServer, tmp_path: Path) -> None:
    others = Authority(tmp_path).issue("albatros")
    (missing,) = findings(nomad, others.ca, others.certificate, others.key)
    assert "certificate verify failed" in missing
