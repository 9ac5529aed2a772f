"""The skip texts, and the summary that a run ends with."""

import json

import pytest

from tests.tools import TOOLS, comes_with_debian, missing

pytest_plugins = ["pytester"]


@pytest.fixture
def bare_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.usefixtures("bare_path")
@pytest.mark.parametrize("name", TOOLS)
def test_a_missing_tool_is_named_with_what_brings_it(name: str) -> None:
    assert missing(name) == f"needs {name} ({TOOLS[name].bring})"


def test_nothing_is_missing_when_its_programs_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.tools.shutil.which", lambda program: f"/bin/{program}")
    assert missing(*TOOLS) == ""


@pytest.mark.usefixtures("bare_path")
def test_ci_may_lack_what_is_built_but_not_what_debian_has() -> None:
    assert comes_with_debian(missing("gitea", "nix"))
    assert not comes_with_debian(missing("gitea", "nomad", "crane"))
    assert not comes_with_debian("only one core here")


def test_a_run_ends_with_what_was_skipped_and_writes_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.skipif(True, reason="needs nix (apt-get install nix-bin)")
        def test_one(): ...

        def test_two():
            pytest.skip("needs gitea (make services)")

        def test_three():
            pytest.skip("needs gitea (make services)")
        """
    )
    result = pytester.runpytest_subprocess("-p", "tests.skips", "--skips-to", "skips.json")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["*skipped, and why*", "   2 needs gitea (make services)", "   1 needs nix (*"])
    rows = json.loads((pytester.path / "skips.json").read_text())
    assert [(row["reason"], len(row["tests"]), row["debian"]) for row in rows] == [
        ("needs gitea (make services)", 2, False),
        ("needs nix (apt-get install nix-bin)", 1, True),
    ]
