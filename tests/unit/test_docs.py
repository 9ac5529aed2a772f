"""The reference is what the code says now: nothing is missing from it, and nothing in it is stale."""

import re
import tomllib
from pathlib import Path

import pytest

from albatros import assets
from albatros.cli import COMMANDS
from albatros.domain import states
from albatros.http.prometheus import METRICS
from albatros.settings import Settings, load, sections
from scripts.reference import api
from scripts.reference.pages import ROOT, generate

REFERENCE = ROOT / "docs" / "reference"


def read(page: str) -> str:
    return (REFERENCE / f"{page}.md").read_text(encoding="utf-8")


GENERATED = generate()


@pytest.mark.parametrize("path", GENERATED)
def test_a_generated_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], "run `make docs`"


@pytest.mark.parametrize("section", sections())
def test_every_setting_is_in_the_reference(section: str) -> None:
    text = re.split(rf"\n## \[+{section}\]+\n", read("settings"))[1].partition("\n## ")[0]
    for key, field in sections()[section].model_fields.items():
        assert f"| `{key}`" in text
        assert field.description, f"{section}.{key} has no description"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"\n## albatros {command}\n" in read("cli")


def test_every_state_and_reason_is_in_the_reference_with_its_meaning() -> None:
    text = read("states")
    machines = (states.BuildState, states.JobState, states.AttemptState, states.PublicationState)
    words = (states.Reason, states.Trigger, states.JobKind)
    for kind in (*machines, *words):
        part = text.partition(f"## {kind.__name__}\n")[2].partition("\n## ")[0]
        for member in kind:
            row = next((line for line in part.splitlines() if line.startswith(f"| `{member}` |")), "")
            assert row, f"{kind.__name__}.{member} is not in the reference"
            assert len(row.split(" | ")[-1].strip(" |")) > 10, f"{kind.__name__}.{member} has no docstring"


def test_every_metric_is_in_the_reference() -> None:
    text = read("metrics")
    in_code = set(
        re.findall(r'"((?:albatros|process)_[a-z_]+)"', Path(ROOT / "albatros/http/prometheus.py").read_text())
    )
    assert in_code == {metric.name for metric in METRICS}
    for name in in_code:
        assert f"| `{name}` |" in text


def test_every_endpoint_is_in_the_reference() -> None:
    text = read("api")
    paths = api.application().openapi()["paths"]
    assert len(paths) > 10
    for path, calls in paths.items():
        for method in calls:
            assert f"\n### {method.upper()} {path}\n" in text
    for route in api.unlisted_routes():
        assert f"{route.path}` |" in text or f" {route.path}\n" in text


def test_the_example_config_loads_and_says_the_defaults(tmp_path: Path) -> None:
    example = assets.example_config()
    assert load(example, {}) == Settings()
    # Prose has a space behind its #, a key that was put out of force has none.
    in_force = re.sub(r"^#(?! )", "", example.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\n#\n", "\n")
    (tmp_path / "albatros.toml").write_text(in_force)
    loaded = load(tmp_path / "albatros.toml", {})
    assert loaded.model_copy(update={"forges": (), "builders": (), "operators": (), "registries": ()}) == Settings()
    written = tomllib.loads(in_force)
    for name, model in sections().items():
        table = written[name][0] if name in {"forges", "builders", "operators", "registries"} else written[name]
        assert list(table) == list(model.model_fields), name
