"""The wheel that people install holds everything that the program reads, and the locks hold what it was tested with."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.tools import ROOT, needs

_SCRIPTS = ["apt-need", "lock", "need-tools", "services", "setup"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Albatros as a wheel, built as pip would but without fetching anything."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (built,) = target.glob("albatros-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def _located(directory: Path) -> dict[str, Path]:
    """What albatros.assets answers for the albatros package in this directory."""
    program = (
        f"import sys; sys.path.insert(0, {str(directory)!r}); from albatros import assets as a;"
        "print(a.web_dir(), a.migrations_dir(), a.examples_dir(), a.example_config(), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd="/", timeout=60
    )
    return dict(zip(("web", "migrations", "examples", "config"), map(Path, done.stdout.splitlines()), strict=True))


def test_assets_are_found_in_a_checkout() -> None:
    located = _located(ROOT)
    assert located == {
        "web": ROOT / "web",
        "migrations": ROOT / "migrations",
        "examples": ROOT / "examples",
        "config": ROOT / "deploy/albatros.example.toml",
    }
    assert [path for path in located.values() if not path.exists()] == []


@pytest.mark.parametrize("name", ["web", "migrations", "examples"])
def test_a_wheel_holds_each_committed_asset(installed: Path, name: str) -> None:
    located = _located(installed)[name]
    assert located.is_relative_to(installed / "albatros")
    committed = subprocess.run(
        ["git", "ls-files", "-z", name], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    lost = [file for file in committed if file and not (located.parent / file).is_file()]
    assert committed != [""]
    assert lost == []


def test_a_wheel_puts_nothing_beside_the_package(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {"albatros", *(p.name for p in installed.glob("*.dist-info"))}


def test_a_wheel_holds_the_example_config_and_the_licence(installed: Path) -> None:
    config = _located(installed)["config"]
    assert config.is_relative_to(installed / "albatros")
    assert tomllib.loads(config.read_text())
    (licence,) = installed.glob("albatros-*.dist-info/licenses/LICENSE")
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in licence.read_text()


def _pins(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text().splitlines()
    pinned = (line.removesuffix(" \\").split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: version.partition(" ;")[0] for name, version in pinned}


def test_tests_run_on_the_versions_that_operators_install() -> None:
    dev, runtime = _pins("requirements-dev.lock"), _pins("requirements.lock")
    assert runtime.items() <= dev.items()
    assert "sqlalchemy" in runtime
    assert "pytest" not in runtime


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_name_no_place_to_fetch_from(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not any(line.startswith(("-", "--")) for line in text.splitlines())


@needs("shellcheck")
def test_the_scripts_of_make_and_ci_are_clean() -> None:
    files = [*(f"scripts/{name}" for name in _SCRIPTS), ".ci/run", "deploy/garage/make-registry"]
    done = subprocess.run(["shellcheck", *files], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    assert done.returncode == 0
