"""The real runner evaluates real flakes with real Nix and git, for a server of the test."""

from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import (
    FLAKES,
    attributes_of,
    commit_all,
    copy_repo,
    evaluation_order,
    hostile_repo,
    make_repo,
    result_of,
    run_order,
)
from tests.tools import needs

pytestmark = needs("nix", "git")
SECRET = "the-servers-key-0123456789"


def test_every_attribute_is_reported_and_bad_ones_fail_alone(tmp_path: Path) -> None:
    commit = copy_repo(tmp_path / "repo", FLAKES / "mixed")
    server = run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit))
    found = attributes_of(server)
    prefix = "packages.x86_64-linux."
    assert set(found) == {
        *(prefix + name for name in ("good", "dependent", "broken", "foreign", "throws", "text", '"with.dot"')),
        "checks.x86_64-linux.good",
    }
    good = found[prefix + "good"]
    assert (good["name"], good["system"], good["error"], good["needs"]) == ("good", "x86_64-linux", None, [])
    assert found[prefix + "dependent"]["needs"] == [good["drv_path"]]
    assert found[prefix + "foreign"]["system"] == "riscv64-linux"
    assert "this attribute throws" in str(found[prefix + "throws"]["error"])
    assert found[prefix + "throws"]["drv_path"] is None
    assert "not a derivation" in str(found[prefix + "text"]["error"])
    assert server.log.startswith("claimed on ")
    assert "checks.x86_64-linux.good: /nix/store/" in server.log


def test_an_error_that_nix_cannot_catch_fails_its_attribute_alone(tmp_path: Path) -> None:
    commit = copy_repo(tmp_path / "repo", FLAKES / "uncatchable")
    found = attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    assert str(found["packages.x86_64-linux.good"]["drv_path"]).endswith("-good.drv")
    assert "cannot coerce" in str(found["packages.x86_64-linux.wrong"]["error"]) or "cannot add" in str(
        found["packages.x86_64-linux.wrong"]["error"]
    )
    assert "this attribute aborts" in str(found["packages.x86_64-linux.aborts"]["error"])


def test_the_config_and_the_commit_time_come_from_the_commit(tmp_path: Path) -> None:
    commit = copy_repo(tmp_path / "repo", FLAKES / "uncatchable")
    (tmp_path / "repo" / ".albatros.toml").write_text("[images.later]\n")
    with_config = commit_all(tmp_path / "repo")
    evaluation = result_of(run_order(tmp_path / "h", evaluation_order(tmp_path / "repo", with_config)))["evaluation"]
    assert isinstance(evaluation, dict)
    assert evaluation["config"] == "[images.later]\n"
    assert abs(evaluation["commit_time"] - (tmp_path / "repo" / ".git" / "HEAD").stat().st_mtime) < 600
    older = result_of(run_order(tmp_path / "h", evaluation_order(tmp_path / "repo", commit)))["evaluation"]
    assert isinstance(older, dict)
    assert older["config"] is None


def test_a_strangers_commit_is_built_with_the_settings_of_its_base(tmp_path: Path) -> None:
    copy_repo(tmp_path / "repo", FLAKES / "uncatchable")
    settings = tmp_path / "repo" / ".albatros.toml"
    settings.write_text("[images.base]\n")
    base = commit_all(tmp_path / "repo")
    settings.write_text("[images.evil]\n")
    head = commit_all(tmp_path / "repo")
    found = []
    for commit in (base, "", None):
        order = evaluation_order(tmp_path / "repo", head)
        order["repo"] = {**cast("dict[str, object]", order["repo"]), "config_commit": commit}
        evaluation = result_of(run_order(tmp_path / "h", order))["evaluation"]
        found.append(cast("dict[str, object]", evaluation)["config"])
    assert found == ["[images.base]\n", None, "[images.evil]\n"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README": "no flake here"}, ("alba/hello has no flake.nix",)),
        ({"flake.nix": "{ outputs = { self }: { packages.x = ; }; }"}, ("syntax error", "flake.nix")),
        ({"flake.nix": '{ outputs = { self }: throw "all of it"; }'}, ("all of it",)),
        ({"flake.nix": "{ outputs = { self }: { }; }"}, ("neither packages nor checks",)),
        ({"flake.nix": "{ outputs = { self }: { }; }", "flake.lock": "{"}, ("flake.lock is not JSON",)),
    ],
)
def test_a_repo_without_a_usable_flake_fails_with_a_sentence(
    tmp_path: Path, files: dict[str, str], words: tuple[str, ...]
) -> None:
    commit = make_repo(tmp_path / "repo", files)
    result = result_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    assert (result["outcome"], result["reason"]) == ("failed", "evaluation_failed")
    for word in words:
        assert word in str(result["message"])


def test_too_many_attributes_are_refused(tmp_path: Path) -> None:
    commit = copy_repo(tmp_path / "repo", FLAKES / "mixed")
    result = result_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit, attributes=3)))
    assert result["reason"] == "evaluation_failed"
    assert "8 attributes; at most 3" in str(result["message"])


def test_an_evaluation_that_eats_memory_ends_as_oom(tmp_path: Path) -> None:
    flake = (
        "{ outputs = { self }: { packages.x86_64-linux.a = builtins.length (builtins.genList (x: x) 900000000); }; }"
    )
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    order = evaluation_order(tmp_path / "repo", commit, memory_bytes=1 << 30)
    result = result_of(run_order(tmp_path / "home", order))
    assert result["reason"] == "oom", result
    assert "its limit is 1024 MiB" in str(result["message"])


def test_an_evaluation_that_does_not_end_is_timed_out(tmp_path: Path) -> None:
    slow = "builtins.foldl' (a: b: builtins.foldl' (c: d: c + d) 0 (builtins.genList (x: x) 1000000)) 0"
    flake = f"{{ outputs = {{ self }}: {{ packages = {slow} (builtins.genList (x: x) 1000000); }}; }}"
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    result = result_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit, wall_seconds=3)))
    assert result["reason"] == "timeout"
    assert "3 s" in str(result["message"])


def test_evaluation_does_not_build(tmp_path: Path) -> None:
    flake = """{ outputs = { self }: {
      packages.x86_64-linux.a = derivation { name = builtins.readFile (derivation {
        name = "n"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo -n built > $out" ]; });
        system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"""
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    server = run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit))
    found = attributes_of(server)["packages.x86_64-linux.a"]
    assert "import-from-derivation" in str(found["error"])
    assert not list((tmp_path / "home" / "nix-root" / "nix" / "store").glob("*-n"))


@pytest.mark.parametrize("name", ["path-input", "locked-path"])
def test_a_hostile_input_is_refused(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "keys" / "key"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    commit = hostile_repo(tmp_path / "repo", name, secret)
    server = run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit))
    result = result_of(server)
    assert (result["outcome"], result["reason"]) == ("failed", "evaluation_failed"), result
    assert "lies on the runner's machine" in str(result["message"])
    _assert_secret_is_nowhere(tmp_path, server.log + str(result))


def test_a_hostile_evaluation_reads_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "keys" / "key"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    commit = hostile_repo(tmp_path / "repo", "read-file", secret)
    server = run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit))
    for attribute in attributes_of(server).values():
        assert attribute["drv_path"] is None
        assert "forbidden in pure eval" in str(attribute["error"])
    _assert_secret_is_nowhere(tmp_path, server.log + str(server.result))


def test_a_config_that_is_a_link_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(SECRET)
    make_repo(tmp_path / "repo", {"flake.nix": "{ outputs = { self }: { }; }"})
    (tmp_path / "repo" / ".albatros.toml").symlink_to(secret)
    commit = commit_all(tmp_path / "repo")
    server = run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit))
    assert "has to be a plain file" in str(result_of(server)["message"])
    _assert_secret_is_nowhere(tmp_path, server.log + str(server.result))


def _assert_secret_is_nowhere(tmp_path: Path, told: str) -> None:
    assert SECRET not in told
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path
