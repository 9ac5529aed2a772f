"""Bare repositories: nothing outside their directory, nothing of theirs runs, and notes that two processes write."""

import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.domain.states import BuildState
from albatros.errors import BadInputError, ConfigError, ForgeError, NotFoundError
from albatros.forges import notes
from albatros.forges.base import CommitStatus
from albatros.forges.git import GitForge
from albatros.forges.gitcmd import run_git
from albatros.settings import ForgeKind
from tests.services.process import unprivileged
from tests.support.forge_worlds import BareWorld, bare_world
from tests.support.forge_worlds import settings as forge_settings
from tests.tools import needs

pytestmark = needs("git")
URL = "https://ci.example.org/builds/1"


@pytest.fixture
def world() -> Iterator[BareWorld]:
    with bare_world() as world:
        yield world


def post(world: BareWorld, commit: str, context: str, state: BuildState = BuildState.SUCCEEDED) -> None:
    world.forge.post_status("alba", "hello", CommitStatus(commit, context, state, "text", URL))


def test_repos_are_found_one_and_two_levels_deep(world: BareWorld) -> None:
    root = world.bare.parents[1]
    world.git("init", "-q", "--bare", "-b", "trunk", str(root / "top.git"))
    (root / "alba/notes.txt").write_text("no repo")
    (root / "alba/empty.git").mkdir()
    (root / "alba/a b.git").mkdir()
    found = {repo.full_name: repo.default_branch for repo in world.forge.repos()}
    assert found == {"alba/hello": "main", "srv/top": "trunk"}


def test_a_closed_repository_is_private(world: BareWorld) -> None:
    assert not world.forge.describe("alba", "hello").private
    world.bare.chmod(0o750)
    assert world.forge.describe("alba", "hello").private


def test_nothing_outside_the_directory_is_opened(world: BareWorld, tmp_path: Path) -> None:
    outside = tmp_path / "secret.git"
    world.git("init", "-q", "--bare", str(outside))
    root = world.bare.parents[1]
    (root / "alba/link.git").symlink_to(outside)
    (root / "eve").symlink_to(tmp_path)
    for owner, name in (("alba", "link"), ("eve", "secret"), ("alba", "nothing")):
        with pytest.raises(NotFoundError):
            world.forge.describe(owner, name)
    for owner, name in (("..", "secret"), ("alba", ".."), ("alba", "../../secret"), ("", "hello"), ("-x", "hello")):
        with pytest.raises(BadInputError):
            world.forge.heads(owner, name)
    assert [repo.full_name for repo in world.forge.repos()] == ["alba/hello"]


def test_a_relative_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="absolute"):
        GitForge(forge_settings(ForgeKind.GIT, "srv/git"))


def test_file_addresses_are_directories_too(world: BareWorld) -> None:
    forge = GitForge(forge_settings(ForgeKind.GIT, f"file://{world.bare.parents[1]}"))
    assert forge.clone_source("alba", "hello").url == f"file://{world.bare}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only then the runner is another user")
def test_a_repository_that_the_runner_cannot_read_is_a_clear_error(world: BareWorld) -> None:
    world.forge.clone_source("alba", "hello")
    world.bare.chmod(0o750)
    with pytest.raises(ForgeError, match=r"chmod -R o\+rX .*hello\.git"):
        world.forge.clone_source("alba", "hello")
    world.bare.chmod(0o755)
    world.bare.parent.chmod(0o700)
    with pytest.raises(ForgeError, match=r"chmod o\+x .*alba"):
        world.forge.clone_source("alba", "hello")
    world.bare.parent.chmod(0o755)


def test_a_tag_of_something_else_than_a_commit_is_no_head(world: BareWorld) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    tree = world.git("rev-parse", "HEAD^{tree}")
    world.git("push", "-q", str(world.bare), f"{tree}:refs/tags/tree")
    assert world.forge.heads("alba", "hello") == {"refs/heads/main": commit}
    assert world.forge.head("alba", "hello", "refs/tags/tree") is None


def test_its_hooks_and_config_run_nothing(world: BareWorld, tmp_path: Path) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    trace = tmp_path / "trace"
    trace.touch()
    trace.chmod(0o666)
    tmp_path.chmod(0o755)
    for name in ("reference-transaction", "post-receive", "update", "post-update"):
        hook = world.bare / "hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> {trace}\n")
        hook.chmod(0o755)
    post(world, commit, "albatros")
    assert world.forge.heads("alba", "hello")
    assert trace.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only then git may run as the repository's owner")
def test_what_root_writes_belongs_to_the_repositorys_owner(world: BareWorld) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    account = unprivileged()
    subprocess.run(["chown", "-R", f"{account.uid}:{account.gid}", str(world.bare)], check=True)
    post(world, commit, "albatros")
    assert {path.stat().st_uid for path in world.bare.rglob("*")} == {account.uid}


def test_many_contexts_and_commits_in_notes(world: BareWorld) -> None:
    commits = [world.commit(f"c{number}") for number in range(5)]
    world.push("refs/heads/main", commits[-1])
    for commit in commits:
        for context in ("albatros", "albatros/a\tb", "albatros/c"):
            post(world, commit, context, BuildState.RUNNING)
            post(world, commit, context)
    for commit in commits:
        for context in ("albatros", "albatros/a b", "albatros/c"):
            assert world.status(commit, context) == ("success", "text", URL)
        note = world.git(f"--git-dir={world.bare}", "notes", "--ref=albatros", "show", commit)
        assert len(note.splitlines()) == 3


def test_the_same_status_again_makes_no_commit(world: BareWorld) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    post(world, commit, "albatros")
    tip = run_git(world.bare, "rev-parse", notes.NOTES_REF)
    post(world, commit, "albatros")
    assert run_git(world.bare, "rev-parse", notes.NOTES_REF) == tip


def test_notes_of_others_are_kept(world: BareWorld) -> None:
    first, second = world.commit("first"), world.commit("second")
    world.push("refs/heads/main", second)
    bare = f"--git-dir={world.bare}"
    world.git(bare, "notes", "--ref=albatros", "add", "-m", "other\tpending\tby hand\turl", first)
    world.git(bare, "notes", "--ref=albatros", "add", "-m", "other\tpending\tby hand\turl", second)
    post(world, first, "albatros")
    assert world.status(first, "other") == ("pending", "by hand", "url")
    assert world.status(first, "albatros") == ("success", "text", URL)
    assert world.status(second, "other") == ("pending", "by hand", "url")


def _post_many(bare: Path, commit: str, who: str) -> None:
    for number in range(5):
        notes.write_line(bare, commit, f"albatros/{who}-{number}", ("success", "text", URL))


def test_two_processes_that_write_at_once_lose_nothing(world: BareWorld) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_post_many, args=(world.bare, commit, who)) for who in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    note = world.git(f"--git-dir={world.bare}", "notes", "--ref=albatros", "show", commit)
    contexts = {line.split("\t")[0] for line in note.splitlines()}
    assert contexts == {f"albatros/{who}-{number}" for who in "abc" for number in range(5)}
    run_git(world.bare, "fsck", "--strict")
