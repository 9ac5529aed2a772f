"""What a server says about the images it publishes: bills of materials, provenance, signatures."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select

from albatros.db.models import Image, ImageProof
from albatros.db.session import Database, now
from albatros.domain.references import Digest, RegistryUrl, parse_digest
from albatros.domain.referrers import fallback_tag
from albatros.domain.states import BuildState
from albatros.errors import ConfigError, ImageError
from albatros.flows.collect import collect
from albatros.flows.proofs import signing_key
from albatros.images.bundle import BUNDLE, STATEMENT, open_bundle
from albatros.images.keys import SigningKey
from albatros.images.referrers import list_referrers, read_artifact, read_only_layer, subjects
from albatros.images.sbom import SBOM
from albatros.images.trust import Expected, check_signature
from albatros.images.verify import read_published
from albatros.registries.base import Registry
from albatros.registries.opening import open_registry
from albatros.settings import RetentionSettings, SigningSettings
from tests.services.registry import RegistryServer
from tests.support.archives import Archive, layer
from tests.support.flows import World, drv, output_of, package, settings_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.pushing import built, digest_of_build
from tests.tools import needs

NAME = "hello"
HELLO, MUSL = f"/nix/store/{'0' * 32}-hello", f"/nix/store/{'1' * 32}-musl-1.2.5"
FULL = f"memory.example.org/{NAME}"
HUB = {"name": "hub", "url": "docker://hub.example.org", "names": ["{repo}"]}


def world_of(database: Database, data: Path, **signing: object) -> World:
    return World(database, settings_of(data, registries=[HUB], signing=signing))


def new_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def published(world: World) -> tuple[MemoryRegistry, Digest, int]:
    build = built(world)
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED, world.of(build).message
    registry = world.registries["hub"]
    assert isinstance(registry, MemoryRegistry)
    return registry, parse_digest(digest_of_build(world, build)), build


def kinds(registry: MemoryRegistry, digest: Digest) -> Sequence[str]:
    return sorted(referrer.artifact_type for referrer in list_referrers(registry, NAME, digest))


def test_nothing_is_said_unless_it_is_asked_for(database: Database, tmp_path: Path) -> None:
    registry, digest, _ = published(world_of(database, tmp_path))
    assert list_referrers(registry, NAME, digest) == ()
    assert not [tag for tag in registry.list_tags(NAME) if tag.startswith("sha256-")]


def test_a_signed_build_says_where_it_came_from(database: Database, tmp_path: Path) -> None:
    pem = new_pem()
    world = world_of(database, tmp_path, key=pem, provenance=True)
    registry, digest, build = published(world)
    row = world.of(build)
    key = SigningKey.parse(pem.encode(), "", "key").public
    claims = check_signature(registry, NAME, digest, key, Expected(FULL, commit=row.commit))
    assert claims.repo == f"{row.repo.forge}/{row.repo.full_name}"
    with pytest.raises(ImageError, match="for the commit"):
        check_signature(registry, NAME, digest, key, Expected(FULL, commit="f" * 40))
    statements = [
        open_bundle(read_only_layer(read_artifact(registry, NAME, digest, referrer)), key)
        for referrer in list_referrers(registry, NAME, digest)
        if referrer.artifact_type == BUNDLE
    ]
    (provenance,) = [s for s in statements if s and s["predicateType"] == "https://slsa.dev/provenance/v1"]
    text = json.dumps(provenance)
    assert row.commit in text
    assert drv("docker") in text
    moves = [tag.startswith("sha256-") for _, tag, _ in registry.moves]
    assert moves == sorted(moves, reverse=True), "a tag moved before a proof was there"


def test_without_a_key_there_are_bare_statements(database: Database, tmp_path: Path) -> None:
    registry, digest, _ = published(world_of(database, tmp_path, sbom=True, provenance=True))
    assert kinds(registry, digest) == sorted([SBOM, STATEMENT])
    manifest = json.loads(registry.manifests[NAME, digest].data)["manifests"][0]["digest"]
    assert kinds(registry, manifest) == sorted([SBOM, STATEMENT])


@pytest.mark.parametrize(
    ("closure", "files", "expected"),
    [
        ([HELLO, MUSL], {"nix/store/x": b""}, [("musl", "1.2.5")]),
        ([HELLO], {"nix/store/0123456789abcdfghijklmnpqrsvwxyz-zlib-1.3/lib": b""}, [("zlib", "1.3")]),
        ([HELLO], {"bin/hello": b"no build information"}, [("hello", "")]),
    ],
    ids=["closure", "layers", "nothing but itself"],
)
def test_components_come_from_the_closure_else_from_the_layers(
    database: Database,
    tmp_path: Path,
    closure: Sequence[str],
    files: Mapping[str, bytes],
    expected: Sequence[tuple[str, str]],
) -> None:
    world = world_of(database, tmp_path, sbom=True)
    build = world.build()
    world.evaluate([package("docker")])
    (runner,) = world.dispatch()
    runner.claim()
    data = Archive([layer(**files)], {"architecture": "amd64", "os": "linux"}).tar()
    file = {"path": "", "kind": "file", "digest": runner.upload(data).digest, "size": len(data), "executable": False}
    paths = [{"path": path, "nar_hash": f"sha256:{'0' * 64}", "nar_size": 1} for path in closure]
    runner.report(outputs=[output_of([file]) | {"closure": paths}])
    world.finish()
    registry, digest = world.registries["hub"], parse_digest(digest_of_build(world, build))
    image = read_published(registry, NAME, digest)
    for subject in subjects(image):
        (sbom,) = list_referrers(registry, NAME, subject.digest)
        document = json.loads(read_only_layer(read_artifact(registry, NAME, subject.digest, sbom)))
        assert [(part["name"], part.get("version", "")) for part in document["components"]] == expected


@pytest.fixture
def distribution(registry_server: RegistryServer) -> Iterator[Registry]:
    registry = open_registry(RegistryUrl.parse(f"{registry_server.url}/{uuid.uuid4()}"))
    yield registry
    registry.close()


@needs("docker-registry")
def test_a_registry_without_the_referrers_api_lists_every_proof_by_tag(
    database: Database, tmp_path: Path, distribution: Registry
) -> None:
    pem = new_pem()
    settings = settings_of(tmp_path, registries=[HUB], signing={"key": pem, "sbom": True, "provenance": True})
    registry = distribution
    world = World(database, settings, registries={"hub": registry})
    build = built(world)
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED, world.of(build).message
    image = read_published(registry, NAME, "latest")
    key = SigningKey.parse(pem.encode(), "", "key").public
    for subject in subjects(image):
        assert registry.get_referrers(NAME, subject.digest) is None, "it has no such API"
        assert fallback_tag(subject.digest) in registry.list_tags(NAME)
        listed = list_referrers(registry, NAME, subject.digest)
        assert sorted(referrer.artifact_type for referrer in listed) == sorted([SBOM, BUNDLE, BUNDLE])
        said = [
            json.dumps(open_bundle(read_only_layer(read_artifact(registry, NAME, subject.digest, referrer)), key))
            for referrer in listed
            if referrer.artifact_type == BUNDLE
        ]
        (provenance,) = [text for text in said if "https://slsa.dev/provenance/v1" in text]
        for fact in (drv("docker"), world.of(build).commit, world.of(build).repo.full_name, "gitCommit"):
            assert fact in provenance


def test_the_collector_keeps_what_is_to_be_published(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path, sbom=True)
    build = built(world)
    assert world.assemble()
    with database.read() as session:
        image = session.scalars(select(Image).where(Image.build_id == build)).one()
        digests = session.scalars(select(ImageProof.digest).where(ImageProof.image_id == image.id)).all()
    assert len(digests) == 2
    collect(database, world.store, RetentionSettings(), now=now() + timedelta(days=400))
    assert all(world.store.size(parse_digest(digest)) is not None for digest in digests)
    world.publish()
    registry = world.registries["hub"]
    assert isinstance(registry, MemoryRegistry)
    assert kinds(registry, parse_digest(image.digest)) == [SBOM]


def test_a_key_that_cannot_be_used_is_said_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"signing\.key is not a private key"):
        signing_key(SigningSettings.model_validate({"key": "nonsense"}))
    assert signing_key(SigningSettings()) is None
