"""Images that nix2container describes, published from a real Nix store; the digests are those that it gave them."""

import json
import subprocess
from pathlib import Path

import pytest

from albatros import cli
from albatros.domain.references import digest_of
from albatros.images.layers import LayerWriter
from albatros.registries.serve import serve_directory
from tests.support.archives import gzipped
from tests.support.archives import layer as tar
from tests.support.flakes import ARMV6
from tests.support.pulls import Remote
from tests.tools import needs

pytestmark = needs("nix")
ROOT_LAYER = ("sha256:2ff8474f7a4a3d1e8cb1d19616ffbee8cf106e452dd10b4080d88de0a7219994", 4096)
LIBRARY_LAYER = ("sha256:002365acf53df002b27792d2478a1f898ad238479aef8f3a534ba75801487fd8", 4096)
"""What nix2container at 20d3395 computed for the trees below."""
SCRIPT = "#!/bin/sh\n"


@pytest.fixture(autouse=True)
def only_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "COMMANDS", ("image",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def push(tmp_path: Path, *sources: Path) -> int:
    target = f"dir:{tmp_path / 'registry'}"
    return cli.main(["image", "push", "-t", "hello:v1", *map(str, sources), "--to", target])


def layer(path: str, pinned: tuple[str, int], **options: object) -> dict[str, object]:
    digest, size = pinned
    return {
        "digest": digest,
        "size": size,
        "diff_ids": digest,
        "paths": [{"path": path, **({"options": options} if options else {})}],
        "mediatype": "application/vnd.oci.image.layer.v1.tar",
        "History": {},
    }


class Store:
    """A Nix store of its own with two paths, and the descriptions in it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        tree = home / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "etc").mkdir()
        (tree / "bin" / "hello").write_text(SCRIPT)
        (tree / "bin" / "hello").chmod(0o755)
        (tree / "etc" / "hello").symlink_to("../bin/hello")
        (home / "lib").mkdir()
        (home / "lib" / "file").write_text("library\n")
        self.tree, self.library = self.add(tree, "root"), self.add(home / "lib", "library")

    def add(self, path: Path, name: str) -> str:
        command = [
            "nix",
            "--extra-experimental-features",
            "nix-command",
            "store",
            "add-path",
            "--name",
            name,
            str(path),
        ]
        store = ["--store", f"local?root={self._home / 'chroot'}"]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self._home)}
        done = subprocess.run([*command, *store], check=True, capture_output=True, text=True, env=environment)
        return done.stdout.strip()

    def describe(self, architecture: str, **change: object) -> Path:
        """A description, kept in the store as nix2container's derivation leaves it."""
        perms = [{"regex": ".*bin/hello", "mode": "0700", "uid": 1000, "gid": 100, "uname": "", "gname": ""}]
        rewrite = {"regex": f"^{self.tree}", "repl": ""}
        image = {
            "version": 1,
            "image-config": {"Entrypoint": ["/bin/hello"]},
            "layers": [
                layer(self.library, LIBRARY_LAYER),
                layer(self.tree, ROOT_LAYER, rewrite=rewrite, perms=perms),
            ],
            "arch": architecture,
            "created": "0001-01-01T00:00:00Z",
        }
        file = self._home / f"image.{architecture}.json"
        file.write_text(json.dumps(image | change, indent="\t"))
        return self.physical(self.add(file, f"image.{architecture}.json"))

    def physical(self, path: str) -> Path:
        return self._home / "chroot" / path.removeprefix("/")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@needs("skopeo")
def test_several_become_one_image(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = [store.describe(architecture) for architecture in ("amd64", "arm", "arm64")]
    assert push(tmp_path, *described) == 0
    with serve_directory(tmp_path / "registry") as host:
        remote = Remote(host, "hello")
        assert remote.platforms("v1") == {("amd64", ""), ("arm", "v6"), ("arm64", "v8")}
        assert remote.pull("v1", ARMV6) == SCRIPT.encode()
    # Its layers are known by now: they are hashed, and not compressed again.
    monkeypatch.setattr(LayerWriter, "_compressed", lambda *_: pytest.fail("a layer was compressed again"))
    assert push(tmp_path, *described) == 0


def test_a_directory_of_descriptions(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    for architecture in ("amd64", "arm64"):
        (directory / f"linux.{architecture}.json").symlink_to(store.describe(architecture))
    (directory / "notes.json").write_text('{"a": 1}')
    (directory / "notes.txt").symlink_to(store.describe("386"))
    assert push(tmp_path, directory) == 0
    assert "linux/amd64, linux/arm64/v8" in capsys.readouterr().err


def test_a_store_path_that_changed_is_refused(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = store.describe("amd64")
    file = store.physical(f"{store.library}/file")
    for content, said in (
        (b"Library\n", "the archive is damaged or was changed"),
        (b"x" * 600, "build the image again"),
    ):
        file.chmod(0o644)
        file.write_bytes(content)
        file.chmod(0o444)
        assert push(tmp_path, described) == 1
        error = capsys.readouterr().err
        assert f"{described}: " in error
        assert said in error
    assert not (tmp_path / "registry").exists()


def test_a_layer_in_a_file_of_its_own(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A base image's layers, which nix2container keeps as it got them."""
    base = tar(hello=b"base")
    (tmp_path / "base").write_bytes(gzipped(base))
    entry = {**layer("", (digest_of(base), 0)), "layer-path": store.add(tmp_path / "base", "base")}
    described = store.describe("amd64", layers=[entry])
    assert push(tmp_path, described) == 0
    assert cli.main(["image", "inspect", f"dir:{tmp_path / 'registry'}/hello:v1"]) == 0
    assert capsys.readouterr().out.count("    layer ") == 1
    assert cli.main(["image", "verify", f"dir:{tmp_path / 'registry'}/hello:v1"]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "only version 1 is known"),
        ({"layers": [layer("/etc", ROOT_LAYER)]}, "/etc is not in the Nix store"),
        (
            {"layers": [layer("/nix/store/00000000000000000000000000000000-gone", ROOT_LAYER)]},
            "where its store paths are",
        ),
        ({"layers": [{"diff_ids": "sha256:0"}]}, "is not a digest"),
        ({"layers": [{**layer("", ROOT_LAYER), "layer-path": "/etc/passwd"}]}, "leaves the Nix store"),
    ],
)
def test_what_cannot_be_published_is_told(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], said: str
) -> None:
    assert push(tmp_path, store.describe("amd64", **change)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "registry").exists()
