"""Signatures and other proofs at registries with the referrers API, without it, in a directory and in a bucket."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from albatros.domain.references import RegistryUrl
from albatros.images.copy import read_proofs
from albatros.images.keys import SigningKey
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.images.referrers import list_referrers, make_artifact, subjects
from albatros.images.signing import Claims, identity, sign_image
from albatros.images.trust import Expected, check_signature
from albatros.registries.base import Credentials, Registry
from albatros.registries.opening import open_registry
from tests.services.garage import BUCKET, GarageServer
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.registry import RegistryServer
from tests.support.images import make_image
from tests.support.memory_registry import MemoryRegistry
from tests.support.stores import MemoryStore

NAME = "alba/hello"
ONE, OTHER = "a" * 40, "b" * 40


@pytest.fixture(params=["dir", "garage", "docker-registry", "gitea", "fake"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "fake":
        yield MemoryRegistry()
        return
    url, login = f"dir:{tmp_path / 'registry'}", None
    if request.param == "docker-registry":
        server: RegistryServer = request.getfixturevalue("registry_server")
        url = f"{server.url}/prefix"
    elif request.param == "gitea":
        gitea: GiteaServer = request.getfixturevalue("gitea")
        url, login = f"docker://{gitea.host}/{ADMIN}/{uuid.uuid4()}", Credentials(ADMIN, gitea.token, "the fixture")
    elif request.param == "garage":
        garage: GarageServer = request.getfixturevalue("garage")
        url, login = garage.url_of(f"{BUCKET}/{uuid.uuid4()}"), garage.credentials
    found = open_registry(RegistryUrl.parse(url), login)
    yield found
    found.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def image(store: MemoryStore) -> Image:
    return make_image(store)


def test_proofs_are_found_beside_their_image(registry: Registry, image: Image, store: MemoryStore) -> None:
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    name = identity(registry.address, NAME)
    for commit in (ONE, ONE, OTHER):
        claims = Claims(name, "https://git.example.org/alba/hello", commit)
        publish(image, store, registry, NAME, ["v1"], proofs=sign_image(image, key, claims))
    for subject in subjects(image):
        assert len(list_referrers(registry, NAME, subject.digest)) == 2
        for commit in (ONE, OTHER):
            check_signature(registry, NAME, subject.digest, key.public, Expected(name, commit=commit))
    assert len(read_proofs(registry, NAME, image)) == 3 * len(subjects(image))


def test_an_artifact_keeps_its_type_and_annotations(registry: Registry, image: Image, store: MemoryStore) -> None:
    publish(image, store, registry, NAME, ["v1"])
    assert list_referrers(registry, NAME, image.digest) == ()
    artifact = make_artifact(image.descriptor, "text/plain", b"a note", {"org.example.by": "somebody"})
    artifact.push(registry, NAME)
    (found,) = list_referrers(registry, NAME, image.digest)
    assert found == artifact.referrer
    assert (found.artifact_type, found.annotations) == ("text/plain", {"org.example.by": "somebody"})


def test_in_a_directory_several_pushers_lose_no_proof(image: Image, store: MemoryStore, tmp_path: Path) -> None:
    registry = open_registry(RegistryUrl.parse(f"dir:{tmp_path}"))
    publish(image, store, registry, NAME, ["v1"])
    start = threading.Barrier(3, timeout=60)

    def attach(number: int) -> None:
        start.wait()
        for round_ in range(4):
            make_artifact(image.descriptor, "text/plain", b"%d %d" % (number, round_), {}).push(registry, NAME)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(attach, range(3)))
    assert len(list_referrers(registry, NAME, image.digest)) == 12
