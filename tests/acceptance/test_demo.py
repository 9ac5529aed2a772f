"""`albatros demo` as a newcomer runs it: from nothing to a pulled image that runs, and again with nothing to build."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import ROOT, needs

pytestmark = [needs("nix", "git", "go"), pytest.mark.timeout(1000)]
PLATFORMS = ("linux/386", "linux/amd64", "linux/arm/v6", "linux/arm64/v8")


def demo(directory: Path) -> str:
    """What it prints."""
    command = [sys.executable, "-m", "albatros", "demo", "--directory", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_builds_once_and_its_image_runs(tmp_path: Path) -> None:
    first = demo(tmp_path / "demo")
    assert all(f"{platform}: " in first for platform in PLATFORMS)
    assert first.count("every digest right") == len(PLATFORMS)
    assert "it says 'Hello from Albatros on linux/" in first
    assert f"reference  dir:{tmp_path}/demo/registry/hello:latest" in first
    again = demo(tmp_path / "demo")
    assert again.count("nothing was rebuilt") == len(PLATFORMS)
    assert "it says 'Hello from Albatros" in again
