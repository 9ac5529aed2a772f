"""The merge of a pull request's head into its base, made by real git in the runner, out of hostile repos too."""

from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import (
    attributes_of,
    build_order,
    commit_all,
    evaluation_order,
    git,
    make_repo,
    result_of,
    run_order,
)
from tests.support.runner_server import RunnerServer
from tests.tools import needs

pytestmark = needs("nix", "git")
ATTRIBUTE = "packages.x86_64-linux.it"
FLAKE = """{ outputs = { self }: { packages.x86_64-linux.it = derivation {
  name = "it"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo seen > $out" ];
  ours = builtins.readFile (self + "/ours"); theirs = builtins.readFile (self + "/theirs"); }; }; }"""
FILES = {"flake.nix": FLAKE, "ours": "old", "theirs": "old"}


class Pull:
    """A repo whose `main` and `feature` have gone apart since `root`."""

    def __init__(self, path: Path, head: dict[str, str], base: dict[str, str], root: dict[str, str] = FILES) -> None:
        self.path = path
        make_repo(path, root)
        git(path, "checkout", "--quiet", "-b", "feature")
        self.head = self._commit(head)
        git(path, "checkout", "--quiet", "main")
        self.base = self._commit(base)

    def _commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.path / name).write_text(text)
        return commit_all(self.path)

    def merging(self, order: dict[str, object], **changes: object) -> dict[str, object]:
        merge = {"commit": self.base, "branch": "main"}
        order["repo"] = {**cast("dict[str, object]", order["repo"]), "merge": merge, **changes}
        return order

    def evaluate(self, home: Path, **changes: object) -> RunnerServer:
        order = self.merging(evaluation_order(self.path, self.head), ref="refs/heads/feature", **changes)
        return run_order(home, order)


def drv_path_of(server: RunnerServer) -> str:
    assert result_of(server)["outcome"] == "succeeded", result_of(server)
    return str(attributes_of(server)[ATTRIBUTE]["drv_path"])


def message_of(server: RunnerServer) -> str:
    """What a merge that does not work ends with."""
    result = result_of(server)
    assert (result["outcome"], result["reason"]) == ("failed", "merge_conflict"), result
    return str(result["message"])


def test_what_is_built_has_the_changes_of_both(tmp_path: Path) -> None:
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"})
    merged = pull.evaluate(tmp_path / "home")
    both = make_repo(tmp_path / "both", {**FILES, "ours": "new", "theirs": "new"})
    alone = run_order(tmp_path / "home", evaluation_order(pull.path, pull.head))
    assert drv_path_of(merged) == drv_path_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "both", both)))
    assert drv_path_of(merged) != drv_path_of(alone)
    assert f"merged {pull.head} into main at {pull.base}" in merged.log


def test_every_runner_makes_the_same_commit(tmp_path: Path) -> None:
    """A Job of the Build makes the merge anew: what it evaluates has to be what the evaluation found."""
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"})
    evaluated = [pull.evaluate(tmp_path / home) for home in ("one", "other")]
    lines = [next(line for line in server.log.splitlines() if "merged" in line) for server in evaluated]
    assert lines[0].split()[-1] == lines[1].split()[-1]
    times = {cast("dict[str, int]", result_of(server)["evaluation"])["commit_time"] for server in evaluated}
    made = [int(git(pull.path, "log", "-1", "--format=%ct", commit)) for commit in (pull.head, pull.base)]
    assert times == {max(made)}
    order = pull.merging(build_order(pull.path, pull.head, ATTRIBUTE, drv_path_of(evaluated[0])))
    assert result_of(run_order(tmp_path / "one", order))["outcome"] == "succeeded"


def test_a_conflict_is_the_pull_requests_fault_and_names_the_files(tmp_path: Path) -> None:
    pull = Pull(tmp_path / "repo", {"ours": "x", "theirs": "x"}, {"ours": "y", "theirs": "y"})
    message = message_of(pull.evaluate(tmp_path / "home"))
    assert message == f"{pull.head} does not merge with main: conflicts in ours, theirs"


def test_of_many_conflicts_some_are_named(tmp_path: Path) -> None:
    names = [f"file{number:02}" for number in range(13)]
    root, head, base = ({**FILES, **dict.fromkeys(names, text)} for text in ("a", "b", "c"))
    message = message_of(Pull(tmp_path / "repo", head, base, root).evaluate(tmp_path / "home"))
    assert "conflicts in file00, file01" in message
    assert message.endswith("file09 and 3 more")


def test_commits_without_a_common_one_do_not_merge(tmp_path: Path) -> None:
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"})
    git(pull.path, "checkout", "--quiet", "--orphan", "unrelated")
    pull.base = commit_all(pull.path)
    assert "no commit in common" in message_of(pull.evaluate(tmp_path / "home"))


@pytest.mark.parametrize("line", ["* merge=union", "* merge=evil", "* merge=ours -merge", "* merge=binary"])
def test_merge_drivers_of_the_repo_are_not_used(tmp_path: Path, line: str) -> None:
    """Each of these would let one side win, or run a program."""
    witness = tmp_path / "witness"
    evil = {".gitattributes": line, ".gitconfig": f'[merge "evil"]\n\tdriver = touch {witness}\n'}
    lines = "one\ntwo\nthree\nfour\nfive\n"
    root = {**FILES, **evil, "theirs": lines}
    clean = Pull(tmp_path / "clean", {"theirs": f"{lines}six\n"}, {"theirs": f"zero\n{lines}"}, root)
    assert drv_path_of(clean.evaluate(tmp_path / "home"))
    pull = Pull(tmp_path / "repo", {"theirs": "x\n"}, {"theirs": "y\n"}, root)
    git(pull.path, "config", "merge.evil.driver", f"touch {witness}")
    assert "conflicts in theirs" in message_of(pull.evaluate(tmp_path / "home"))
    assert not witness.exists()


def test_hooks_and_filters_do_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    root = {
        **FILES,
        ".gitattributes": "* filter=evil\n",
        ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {witness}\n',
    }
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"}, root)
    for hook in (
        "pre-merge-commit",
        "post-merge",
        "pre-commit",
        "post-commit",
        "post-checkout",
        "reference-transaction",
    ):
        path = pull.path / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {witness}\n")
        path.chmod(0o755)
    assert drv_path_of(pull.evaluate(tmp_path / "home"))
    assert not witness.exists()


def test_settings_are_those_of_the_base_or_of_the_merge(tmp_path: Path) -> None:
    root = {**FILES, ".albatros.toml": "[images.old]\n"}
    pull = Pull(tmp_path / "repo", {".albatros.toml": "[images.head]\n"}, {"ours": "new"}, root)
    found = []
    for commit in (pull.base, None):
        evaluation = result_of(pull.evaluate(tmp_path / "home", config_commit=commit))["evaluation"]
        found.append(cast("dict[str, object]", evaluation)["config"])
    assert found == ["[images.old]\n", "[images.head]\n"]


def test_a_server_that_gives_no_commit_by_its_id_is_asked_for_its_branches(tmp_path: Path) -> None:
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"})
    git(pull.path, "config", "protocol.version", "0")
    for branch in ("feature", "main"):
        git(pull.path, "checkout", "--quiet", branch)
        commit_all(pull.path)
    assert drv_path_of(pull.evaluate(tmp_path / "home"))


def test_a_base_that_is_gone_is_named(tmp_path: Path) -> None:
    pull = Pull(tmp_path / "repo", {"theirs": "new"}, {"ours": "new"})
    pull.base = "0123456789" * 4
    result = result_of(pull.evaluate(tmp_path / "home"))
    assert f"Commit {pull.base} is no longer in alba/hello" in str(result["message"])
