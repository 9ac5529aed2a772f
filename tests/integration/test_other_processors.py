"""Equal inputs give equal digests on other processors: Debian's qemu-user, with few and with many instructions.

Codecs choose their code by what the processor can; ISA-L at level 3 gives other bytes on each of these.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.digests import all_digests
from tests.tools import ROOT, find, needs

PROGRAM = Path(sys.executable).resolve()
PINNED = {
    "gzip": "sha256:9a15c993110c8c0d0f48aff57c1e4324148f79402524811ebc3c8424d6170552",
    "fast": "sha256:469fdee2f57e4c7df01e4b5b1e86c52a622fb80f31b2d4791dd442f469488d95",
    "zstd": "sha256:3e7ad5013205707bd8d9d11edd438ab6800a9016e758ff486aa9547987934683",
}
"""Change these only together with a codec's version or level: published digests change with them."""


@pytest.fixture(scope="module")
def here() -> dict[str, dict[str, str]]:
    return all_digests(PROGRAM)


def test_digests_of_a_fixed_input_are_pinned(here: dict[str, dict[str, str]]) -> None:
    assert here["fixed"] == PINNED


@needs("qemu-user")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="this Python is of no processor that qemu-x86_64 is")
@pytest.mark.parametrize("processor", ["Nehalem", "max"])
def test_another_processor_gives_the_same_digests(here: dict[str, dict[str, str]], processor: str) -> None:
    command = [find("qemu-x86_64"), "-cpu", processor, sys.executable, "-m", "tests.support.digests", str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here
