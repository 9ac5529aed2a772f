"""A push into a directory that is killed at any step: the old tag stays whole, and the push run again finishes."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.domain.references import RegistryUrl, digest_of
from albatros.images.verify import read_published, verify_platform
from albatros.registries import layout
from albatros.registries.opening import open_registry
from albatros.registries.serve import serve_directory
from tests.support.archives import elf
from tests.tools import ROOT, find, missing

NAME = "alba/hello"
TAG = "latest"
MOMENTS = 30
SECONDS = 60


class Pushes:
    """Pushes of one new image after the other; `tagged` is what the tag has to name."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.root = home / "registry"
        self._generation = 0
        self._registry = open_registry(RegistryUrl.parse(f"dir:{self.root}"))
        for _ in range(2):
            self.new_image()
            self.steps = self.finish()

    def new_image(self) -> None:
        """Another program than all before."""
        self._generation += 1
        (self._home / "hello").write_bytes(elf(payload=random.Random(self._generation).randbytes(1000)))

    def push(self, step: int) -> "subprocess.CompletedProcess[str]":
        """Push, and be killed before this step."""
        push = ["image", "push", str(self._home / "hello"), "-t", f"{NAME}:{TAG}", "--to", f"dir:{self.root}"]
        command = [sys.executable, "-m", "tests.support.dying", str(self.root), str(step), *push]
        env = {"PATH": os.defpath, "HOME": str(self._home)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=SECONDS)

    def finish(self) -> int:
        """Push to the end; how many steps it took."""
        done = self.push(0)
        assert done.returncode == 0, done.stderr
        self.tagged = self.digest()
        assert self.tagged in done.stdout
        return int(done.stderr.splitlines()[-1])

    def digest(self) -> str:
        """What the tag names."""
        found = self._registry.get_manifest(NAME, TAG)
        assert found is not None
        return digest_of(found.data)

    def check(self, host: str) -> None:
        """The tag names a whole image, in the eyes of crane where it is here, and in our own."""
        for manifest in read_published(self._registry, NAME, TAG).manifests:
            verify_platform(self._registry, NAME, manifest)
        if not missing("crane"):
            command = [find("crane"), "validate", "--remote", f"{host}/{NAME}:{TAG}"]
            seen = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
            assert seen.returncode == 0, seen.stdout + seen.stderr


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Pushes:
    return Pushes(tmp_path_factory.mktemp("pushes"))


@pytest.fixture(scope="module")
def host(pushes: Pushes) -> Iterator[str]:
    with serve_directory(pushes.root) as address:
        yield address


@pytest.mark.parametrize("number", range(MOMENTS))
def test_killed_at_steps_spread_evenly_over_all(pushes: Pushes, host: str, number: int) -> None:
    pushes.new_image()
    step = 1 + number * pushes.steps // MOMENTS
    killed = pushes.push(step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    old, found = pushes.tagged, pushes.digest()
    pushes.check(host)
    pushes.finish()
    assert found in (old, pushes.tagged)
    assert pushes.tagged != old
    pushes.check(host)
    assert json.loads((pushes.root / layout.tags_key(NAME)).read_text())["tags"] == [TAG]
