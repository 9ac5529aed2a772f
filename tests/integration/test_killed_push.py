"""A push that is killed at any of its requests: the old tag stays whole, and the push run again finishes.

`albatros image push` runs as a process, and a proxy before Debian's docker-registry kills it. Every push brings a new
image to two names, signed; one layer is larger than the proxy takes in one piece. To a registry, a bill of materials is
what a signature's bundle is.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from albatros.domain.references import RegistryUrl, digest_of
from albatros.errors import AlbatrosError
from albatros.images.keys import SigningKey
from albatros.images.referrers import subjects
from albatros.images.trust import Expected, check_signature
from albatros.images.verify import read_published, verify_platform
from albatros.registries.opening import open_registry
from tests.services.registry import start_registry
from tests.support.archives import Archive, elf, layer
from tests.support.watching_proxy import SECONDS, TOO_LARGE, Moment, WatchingProxy, moments_of, watching_proxy
from tests.tools import ROOT, find, missing, needs

pytestmark = needs("docker-registry")
NAMES = ("alba/hello", "alba/mounted")
TAG = "latest"
MOMENTS = 50
LIMIT = 64 << 10
"""Bytes of a blob that the proxy takes in one piece."""
KINDS = {
    "HEAD a blob",
    "begin an upload",
    "mount a blob",
    "send a blob whole",
    TOO_LARGE,
    "PATCH of a part",
    "close an upload",
    "GET a blob",
    "PUT manifest by digest",
    "PUT index by digest",
    "GET by digest",
    "PUT proof by digest",
    "GET fallback tag",
    "PUT fallback tag",
    "GET signature tag",
    "PUT signature tag",
    "PUT tag",
}


class Pushes:
    """Pushes through the proxy, each of another image; `tags` is what each name's tag has to name."""

    def __init__(self, proxy: WatchingProxy, home: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.proxy = proxy
        self.validator = "albatros" if missing("crane") else "crane"
        self._home = home
        self._key = SigningKey(key)
        self._registry = open_registry(RegistryUrl.parse(f"docker://{proxy.upstream}"))
        self._generation = 0
        (home / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.new_image()
        self.tags = dict.fromkeys(NAMES, self.finish())
        self.new_image()
        self.tags = dict.fromkeys(NAMES, self.finish())
        self.requests = proxy.requests

    def close(self) -> None:
        self._registry.close()

    def new_image(self) -> None:
        """Other programs than all before."""
        self._generation += 1
        new = random.Random(self._generation).randbytes(2 * LIMIT)
        (self._home / "amd64").write_bytes(elf("amd64", payload=new))
        archive = Archive([layer(hello=new[:1000])], {"architecture": "arm64", "os": "linux"})
        (self._home / "arm64").write_bytes(archive.tar())

    def start(self, moment: Moment | None) -> "subprocess.Popen[bytes]":
        """Begin to push, to be killed at this moment."""
        self.proxy.watch(moment)
        sources = [str(self._home / architecture) for architecture in ("amd64", "arm64")]
        tags = [f"--tag={name}:{TAG}" for name in NAMES]
        key = f"--sign-key={self._home / 'key'}"
        command = [sys.executable, "-m", "albatros", "image", "push", *sources, *tags, key, "--json"]
        env = {"PATH": os.defpath, "HOME": str(self._home)}
        with (self._home / "out").open("wb") as out, (self._home / "err").open("wb") as err:
            process = subprocess.Popen(
                [*command, "--to", f"docker://{self.proxy.host}"], stdout=out, stderr=err, env=env, cwd=ROOT
            )
        self.proxy.victim(process)
        return process

    def finish(self) -> str:
        """Push to the end; the digest of the image."""
        process = self.start(None)
        assert process.wait(SECONDS) == 0, (self._home / "err").read_text()
        self.proxy.settle()
        return str(json.loads((self._home / "out").read_text())["digest"])

    def kill(self, moment: Moment) -> None:
        """Push another image and be killed."""
        self.new_image()
        process = self.start(moment)
        code = process.wait(SECONDS)
        self.proxy.settle()
        assert code == -signal.SIGKILL, f"{moment} did not come: {(self._home / 'err').read_text()}"

    def tagged(self, name: str) -> str:
        """What the registry says that the tag names."""
        found = self._registry.get_manifest(name, TAG)
        assert found is not None
        return digest_of(found.data)

    def check(self, name: str) -> None:
        """The tag names a whole image, in the eyes of crane where it is here, else in our own, and it is signed."""
        image = read_published(self._registry, name, TAG)
        if self.validator == "crane":
            command = [find("crane"), "validate", "--remote", f"{self.proxy.upstream}/{name}:{TAG}"]
            seen = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
            assert seen.returncode == 0, seen.stdout + seen.stderr
        else:
            for manifest in image.manifests:
                verify_platform(self._registry, name, manifest)
        for subject in subjects(image):
            wanted = Expected(f"{self.proxy.host}/{name}")
            check_signature(self._registry, name, subject.digest, self._key.public, wanted)

    def lose_a_layer(self, name: str) -> None:
        """Take a layer away at the registry."""
        layer = read_published(self._registry, name, TAG).manifests[0].layers[0]
        url = f"http://{self.proxy.upstream}/v2/{name}/blobs/{layer.digest}"
        with urlopen(Request(url, method="DELETE"), timeout=SECONDS):
            pass


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushes]:
    with start_registry(in_memory=True) as server, watching_proxy(server.host, limit=LIMIT) as proxy:
        found = Pushes(proxy, tmp_path_factory.mktemp("pushes"))
        yield found
        found.close()


def survive(pushes: Pushes, moment: Moment) -> None:
    """Be killed, look at the tags, and finish."""
    pushes.kill(moment)
    for name in NAMES:
        # A tag that the registry was told to move has moved, and no other has.
        assert (pushes.tagged(name) != pushes.tags[name]) == pushes.proxy.was_passed("PUT tag", name)
        pushes.check(name)
    pushes.tags = dict.fromkeys(NAMES, pushes.finish())
    for name in NAMES:
        assert pushes.tagged(name) == pushes.tags[name]
        pushes.check(name)


@pytest.mark.parametrize("number", range(MOMENTS))
def test_killed_at_moments_spread_evenly_over_the_requests(pushes: Pushes, number: int) -> None:
    survive(pushes, moments_of(pushes.requests, MOMENTS)[number])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_killed_at_every_stage_of_every_kind(pushes: Pushes, kind: str) -> None:
    every = [request for request in pushes.requests if request.kind == kind]
    spread = moments_of(pushes.requests, MOMENTS)
    for stage in every[0].stages:
        if not any((moment.kind, moment.stage) == (kind, stage) for moment in spread):
            survive(pushes, Moment(kind, len(every) - 1, stage))


def test_these_are_all_kinds(pushes: Pushes) -> None:
    assert {request.kind for request in pushes.requests} == KINDS


def test_a_tag_that_is_not_whole_is_noticed(pushes: Pushes) -> None:
    pushes.check(NAMES[0])
    pushes.lose_a_layer(NAMES[0])
    with pytest.raises((AssertionError, AlbatrosError)):
        pushes.check(NAMES[0])
    pushes.new_image()
    pushes.tags = dict.fromkeys(NAMES, pushes.finish())


@needs("crane")
def test_crane_was_asked(pushes: Pushes) -> None:
    """Skipped where the checks above are our own alone."""
    assert pushes.validator == "crane"
