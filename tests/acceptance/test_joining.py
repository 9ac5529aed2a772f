"""A repo joins with one command: on a real Gitea, and as a bare repository whose hook nobody has installed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.services.gitea_server import GiteaServer
from tests.support.flakes import hello
from tests.support.gitea_repo import GiteaRepo
from tests.support.line import Line, list_of, make_line
from tests.support.operator import doctor, make_operator, run
from tests.support.runner import git
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "gitea")
SECRET = "a-secret-of-gitea"
READER = "only-reads"


@pytest.fixture(scope="module")
def clone_token(gitea: GiteaServer) -> str:
    """Of a user of Gitea that may read repos and nothing else."""
    return gitea.person(READER, ["read:repository"])


@pytest.fixture(scope="module")
def line(gitea: GiteaServer, clone_token: str) -> Iterator[Line]:
    """A server whose forge lets no repo build that was not added."""
    forge = {"name": "tea", "kind": "gitea", "url": gitea.url, "token": gitea.token, "clone_token": clone_token}
    with make_line(None, {"forges": [{**forge, "webhook_secret": SECRET}]}) as made:
        made.server.start()
        make_operator(made)
        yield made


def hooks(gitea: GiteaServer, repo: GiteaRepo) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", gitea.api("GET", f"/repos/{repo.full_name}/hooks"))


@contextmanager
def watched_processes(secret: str) -> Iterator[list[str]]:
    """Every command line of this machine that held the secret while the block ran."""
    seen: list[str] = []
    looks = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal looks
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = path.read_bytes()
                except OSError:
                    continue
                if secret.encode() in text:
                    seen.append(text.decode("utf-8", "replace"))
            looks += 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    assert looks > 1


def test_one_command_joins_repairs_and_leaves(line: Line, gitea: GiteaServer) -> None:
    repo = GiteaRepo(gitea, "joining", line.paths.root / "work" / "joining", "", SECRET)
    address = f"{gitea.url}/{repo.full_name}"
    assert "was created" in run(line, "repo", "add", address)
    (made,) = hooks(gitea, repo)
    commit = repo.push_files(hello("joined"))
    line.wait_green(repo, commit)

    gitea.api("DELETE", f"/repos/{repo.full_name}/hooks/{made['id']}")
    name = f"tea/{repo.full_name}"
    assert "missing: no webhook" in run(line, "repo", "show", name)
    assert "was created" in run(line, "repo", "add", name)
    (made,) = hooks(gitea, repo)
    gitea.api("PATCH", f"/repos/{repo.full_name}/hooks/{made['id']}", {"active": False, "events": ["push"]})
    assert "differs: the webhook is not active" in run(line, "repo", "show", name)
    assert "repaired: it is not active" in run(line, "repo", "add", name)
    assert f"a test of {repo.full_name} arrived" in doctor(line)
    assert "was removed" in run(line, "repo", "remove", name)
    assert hooks(gitea, repo) == []
    assert "may build       no" in run(line, "repo", "show", name)


def test_a_private_repo_is_cloned_with_a_token_that_nobody_sees(
    line: Line, gitea: GiteaServer, clone_token: str
) -> None:
    repo = GiteaRepo(gitea, "joining-private", line.paths.root / "work" / "private", "", SECRET, private=True)
    gitea.api("PUT", f"/repos/{repo.full_name}/collaborators/{READER}", {"permission": "read"})
    run(line, "repo", "add", f"tea/{repo.full_name}")
    with watched_processes(clone_token) as seen:
        commit = repo.push_files(hello("for few"))
        line.wait_green(repo, commit)
    assert seen == []
    assert clone_token not in line.server.log
    for path in line.paths.data.glob("albatros.sqlite3*"):
        assert clone_token.encode() not in path.read_bytes(), path


def test_a_bare_repo_gets_its_hook_and_a_push_builds() -> None:
    with make_line(None) as made:
        made.server.start()
        make_operator(made)
        repo = made.repo()
        (repo.bare / "hooks" / "post-receive").unlink()
        for key in ("url", "secretFile"):
            git(repo.bare, "config", "--unset", f"albatros.{key}")
        assert "was installed" in run(made, "repo", "add", "home/alba/hello")
        commit = repo.commit(hello("told by its hook"))
        assert "Albatros: build " in repo.push()
        made.wait_green(repo, commit)
        assert "a test of alba/hello arrived" in doctor(made)
        assert "was removed" in run(made, "repo", "remove", "home/alba/hello")
        assert not (repo.bare / "hooks" / "post-receive").exists()
        found = eventually(lambda: list_of(made.server.get("/api/v1/builds")["items"]), lambda: made.server.log)
        assert {build["commit"] for build in found} == {commit}
