"""Bills of materials and provenance: where the components come from, and what is said of them."""

import json
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from albatros.domain.platforms import Platform
from albatros.errors import ImageError
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.components import Component, from_closure, from_layers, union
from albatros.images.goinfo import GoInfoFinder
from albatros.images.provenance import BuildRecord, Derivation, make_provenance
from albatros.images.referrers import read_only_layer
from albatros.images.sbom import SBOM, make_sboms, write_sbom
from tests.support.archives import Archive, elf, member, source, write_tar
from tests.support.images import make_image
from tests.support.stores import MemoryStore
from tests.tools import find, needs

HELLO = "/nix/store/" + "0" * 32 + "-hello-2.12.1"
MUSL = "/nix/store/" + "1" * 32 + "-musl"
CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
MOST = 1 << 30


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def string(data: bytes) -> bytes:
    assert len(data) < 1 << 14
    return (bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])) + data


def go_info(modules: str, version: bytes = b"go1.22.1") -> bytes:
    return (
        b"\xff Go buildinf:\x08\x02".ljust(32, b"\0")
        + string(version)
        + string(b"s" * 16 + modules.encode() + b"e" * 16)
    )


MODULES = (
    "path\tx.org/hello\nmod\tx.org/hello\tv1.0.0\t\n"
    "dep\tx.org/a\tv2.0.0\th1:a=\ndep\tx.org/b\tv1\n=>\tx.org/c\tv3\th1:c=\n"
)


@pytest.mark.parametrize("block", [1, 7, 33, 4096])
def test_the_build_information_of_go_is_found_in_passing(block: int) -> None:
    data = b"code \xff Go buildinf: is how it begins" * 3 + bytes(5000) + go_info(MODULES) + bytes(5000)
    finder = GoInfoFinder()
    for start in range(0, len(data), block):
        finder.feed(data[start : start + block])
    assert finder.found is not None
    assert finder.found.go_version == "go1.22.1"
    assert [(m.path, m.version, m.sum) for m in finder.found.modules] == [
        ("x.org/hello", "v1.0.0", ""),
        ("x.org/a", "v2.0.0", "h1:a="),
        ("x.org/c", "v3", "h1:c="),
    ]


def test_damaged_build_information_is_none() -> None:
    for data in (go_info(MODULES)[:100], b"\xff Go buildinf:\x08\x00" + bytes(100), bytes(3 << 20)):
        finder = GoInfoFinder()
        finder.feed(data)
        assert finder.found is None


@needs("go")
def test_a_binary_of_the_real_go(tmp_path: Path, store: MemoryStore) -> None:
    (tmp_path / "go.mod").write_text("module example.org/hello\n\ngo 1.21\n")
    (tmp_path / "main.go").write_text("package main\n\nfunc main() {}\n")
    command = [find("go"), "build", "-o", "hello", "."]
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    image = assemble([source((tmp_path / "hello").read_bytes())], store, NullLayerCache(), AssembleOptions())
    found = from_layers(store, image.manifests[0], MOST)
    assert [(component.name, component.purl_type) for component in found] == [
        ("example.org/hello", "golang"),
        ("std", "golang"),
    ]
    assert found[1].version.startswith("1.")


def test_store_paths_are_found_in_the_layers(store: MemoryStore) -> None:
    link = member(f".{HELLO}/bin/sh", tarfile.SYMTYPE, "/bin/elsewhere")
    layers = [
        write_tar([(member(f".{HELLO}/bin/hello"), elf() + go_info(MODULES)), (link, b"")]),
        write_tar([(member(f"{MUSL[1:]}/lib/libc.so"), b""), (member("etc/passwd"), b"")]),
    ]
    archive = Archive(layers, {"architecture": "amd64", "os": "linux"}).tar()
    image = assemble([source(archive)], store, NullLayerCache(), AssembleOptions())
    found = from_layers(store, image.manifests[0], MOST)
    assert [(component.name, component.version) for component in found] == [("hello", "2.12.1"), ("musl", "")]


def test_a_closure_as_the_runner_reports_it() -> None:
    closure = [{"path": MUSL, "nar_hash": "sha256:1", "nar_size": 1}, {"path": HELLO}, {"path": "/etc/passwd"}, 3]
    found = from_closure(json.dumps(closure).encode())
    assert [(component.name, component.version) for component in found] == [("hello", "2.12.1"), ("musl", "")]
    assert dict(found[1].properties) == {"nix:store-path": MUSL, "nix:nar-hash": "sha256:1"}
    with pytest.raises(ImageError, match="not JSON"):
        from_closure(b"{")


def test_the_document_is_valid_and_depends_on_its_input_alone(store: MemoryStore) -> None:
    image = make_image(store)
    components = from_closure(json.dumps([{"path": HELLO, "nar_hash": "sha256:1"}, {"path": MUSL}]).encode())
    text = write_sbom(image.descriptor, "alba/hello", CREATED, components)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None
    assert text == write_sbom(image.descriptor, "alba/hello", CREATED, tuple(reversed(components)))
    value = json.loads(text)
    assert value["metadata"]["timestamp"] == "2026-01-31T12:00:00+00:00"
    assert value["metadata"]["component"]["version"] == image.digest
    assert [(part["name"], part.get("version")) for part in value["components"]] == [
        ("hello", "2.12.1"),
        ("musl", None),
    ]


def test_each_manifest_has_its_own_and_the_index_all(store: MemoryStore) -> None:
    image = make_image(store)
    amd64, arm = image.platforms
    one, other = Component("one", "1", "generic"), Component("other", "2", "generic")
    made = make_sboms(image, "hello", CREATED, {amd64: [one], arm: [one, other]})
    by_subject = {
        artifact.subject: [part["name"] for part in json.loads(read_only_layer(artifact))["components"]]
        for artifact in made
    }
    assert by_subject == {
        image.manifests[0].descriptor.digest: ["one"],
        image.manifests[1].descriptor.digest: ["one", "other"],
        image.digest: ["one", "other"],
    }
    assert {artifact.referrer.artifact_type for artifact in made} == {SBOM}
    assert make_sboms(image, "hello", CREATED, {}) == []
    assert union([[other], [one, other]]) == (one, other)


def test_provenance_names_source_revision_and_derivations(store: MemoryStore) -> None:
    image = make_image(store)
    derivations = {
        platform: Derivation(f"packages.{platform}.hello", f"/nix/store/{n}.drv")
        for n, platform in enumerate(image.platforms)
    }
    build = BuildRecord(
        "https://git.example.org/alba/hello",
        "refs/heads/main",
        "c" * 40,
        "https://ci.example.org",
        "https://ci.example.org/builds/1",
        derivations,
    )
    made = make_provenance(image, "hello", build, None)
    statements = {artifact.subject: json.loads(read_only_layer(artifact)) for artifact in made}
    assert set(statements) == {image.digest, *(manifest.descriptor.digest for manifest in image.manifests)}
    whole = statements[image.digest]
    assert whole["predicateType"] == "https://slsa.dev/provenance/v1"
    assert whole["subject"] == [{"name": "hello", "digest": {"sha256": image.digest.removeprefix("sha256:")}}]
    definition = whole["predicate"]["buildDefinition"]
    source_, *drvs = definition["resolvedDependencies"]
    assert source_ == {
        "uri": "git+https://git.example.org/alba/hello@refs/heads/main",
        "digest": {"gitCommit": "c" * 40},
    }
    assert [item["uri"] for item in drvs] == ["nix:/nix/store/0.drv", "nix:/nix/store/1.drv"]
    assert whole["predicate"]["runDetails"]["builder"] == {"id": "https://ci.example.org"}
    own = statements[image.manifests[0].descriptor.digest]["predicate"]["buildDefinition"]
    assert len(own["resolvedDependencies"]) == 2
    assert isinstance(image.platforms[0], Platform)
