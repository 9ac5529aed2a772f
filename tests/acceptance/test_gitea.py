"""The line with a real Gitea: its webhook, clones with its token, and statuses that it shows itself."""

from collections.abc import Callable, Iterator

import pytest

from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.registry import RegistryServer
from tests.support.flakes import HOST_SYSTEM, MACHINES, archives, derivation, flake, hello, wait_for
from tests.support.gitea_repo import Fork, GiteaRepo
from tests.support.line import Line, list_of, make_line
from tests.support.published import check_published
from tests.support.runner import git
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry", "gitea")
SECRET = "a-secret-of-gitea"
MakeRepo = Callable[..., GiteaRepo]


@pytest.fixture(scope="module")
def with_gitea(hub: RegistryServer, gitea: GiteaServer) -> Iterator[Line]:
    """A running server whose forge is Gitea."""
    forge = {"name": "tea", "kind": "gitea", "url": gitea.url, "token": gitea.token, "webhook_secret": SECRET}
    with make_line(hub, {"forges": [{**forge, "repos": [f"{ADMIN}/*"]}]}) as line:
        line.server.start()
        yield line


@pytest.fixture
def make_repo(with_gitea: Line, gitea: GiteaServer) -> MakeRepo:
    def make(name: str, *, private: bool = False) -> GiteaRepo:
        webhook = f"{with_gitea.server.url}/webhooks/tea"
        return GiteaRepo(gitea, name, with_gitea.paths.root / "work" / name, webhook, SECRET, private=private)

    return make


def test_a_push_to_gitea_becomes_one_image_and_a_green_commit(with_gitea: Line, make_repo: MakeRepo) -> None:
    repo = make_repo("tea-hello")
    commit = repo.push_files(hello("poured by Gitea"))
    with_gitea.wait_green(repo, commit)
    check_published(with_gitea, "tea-hello", commit)
    states = {"albatros": "success", "albatros/hello@static": "success", "albatros/hello@hub": "success"}
    with_gitea.wait_statuses(repo, commit, states)
    status = repo.status(commit)
    assert status is not None
    assert status.url == f"{with_gitea.server.url}/builds/{with_gitea.build(commit)['id']}"


def test_archives_pushed_to_gitea_become_one_image(with_gitea: Line, make_repo: MakeRepo) -> None:
    repo = make_repo("tea-archives")
    commit = repo.push_files(archives("poured into an archive"))
    with_gitea.wait_green(repo, commit)
    check_published(with_gitea, "tea-archives", commit)


def test_a_failure_is_shown_by_gitea(with_gitea: Line, make_repo: MakeRepo) -> None:
    repo = make_repo("tea-broken")
    attribute = f"packages.{HOST_SYSTEM}.broken"
    commit = repo.push_files({"flake.nix": flake({attribute: derivation("broken", "echo spilled; exit 1")})})
    status = with_gitea.wait(repo, commit)
    assert status.state == "failure"
    assert attribute in status.description


def test_a_private_repo_is_built_and_kept_from_public_registries(with_gitea: Line, make_repo: MakeRepo) -> None:
    repo = make_repo("tea-private", private=True)
    commit = repo.push_files(hello("not for everybody"))
    with_gitea.wait_green(repo, commit)
    for remote in with_gitea.remotes("tea-private"):
        assert not remote.has(commit)
    listed = list_of(with_gitea.server.get("/api/v1/builds?limit=100")["items"])
    assert commit not in {build["commit"] for build in listed}


def test_a_tag_is_built_and_published_under_its_version(with_gitea: Line, make_repo: MakeRepo) -> None:
    repo = make_repo("tea-tagged")
    repo.push_files(hello("on a branch"))
    commit = repo.commit(hello("on a tag"))
    repo.push("HEAD:refs/tags/v1.2.3")
    with_gitea.wait_green(repo, commit)
    for remote in with_gitea.remotes("tea-tagged"):
        assert remote.has("1.2.3")


def reasons_of(line: Line) -> list[str]:
    return [str(row[0]) for row in line.sql("SELECT reason FROM deliveries ORDER BY id")]


def wait_for_reason(line: Line, text: str) -> None:
    """Wait until a delivery was recorded with this in its reason."""
    eventually(lambda: any(text in reason for reason in reasons_of(line)), lambda: "\n".join(reasons_of(line)))


def test_a_forks_pull_request_runs_once_its_commit_is_approved(
    with_gitea: Line, make_repo: MakeRepo, gitea: GiteaServer
) -> None:
    repo = make_repo("tea-forked")
    base = repo.push_files({**hello("the base"), ".albatros.toml": "[limits]\njob_seconds = 900\n"})
    with_gitea.wait_green(repo, base)
    token = gitea.person("eve")
    fork = Fork(gitea, repo, "eve", token, with_gitea.paths.root / "work" / "eve")
    first = fork.commit({**hello("a first try"), ".albatros.toml": "this is no TOML"})
    fork.push("HEAD:refs/heads/feature")
    number = fork.ask_for_a_pull("feature")
    build = with_gitea.wait_build(first, "waiting_approval")
    assert (build["trusted"], build["pull"], build["from_fork"]) == (False, number, True)
    shown = eventually(lambda: repo.status(first), lambda: with_gitea.server.log)
    assert (shown.state, shown.description.endswith(f"/approve {first}")) == ("pending", True)

    repo.comment(number, f"/approve {first}", token)
    wait_for_reason(with_gitea, "eve may not push")
    repo.edit_comment(repo.comment(number, "looks fine"), f"/approve {first}")
    wait_for_reason(with_gitea, "only a new comment is a command")
    repo.comment(number, f"/approve {base}")
    wait_for_reason(with_gitea, "an approval holds for one commit alone")
    second = fork.commit({**hello("a second try"), ".albatros.toml": "this is no TOML"})
    fork.push("HEAD:refs/heads/feature")
    with_gitea.wait_build(second, "waiting_approval")
    assert with_gitea.build(first)["state"] == "superseded"

    repo.comment(number, f"/approve {second}")
    with_gitea.wait_green(repo, second)
    build = with_gitea.build(second)
    assert (build["state"], build["approved_by"], build["trusted"]) == ("succeeded", ADMIN, False)
    assert all(not image["publications"] for image in list_of(build["images"]))
    for remote in with_gitea.remotes("tea-forked"):
        assert not remote.has(second)


def test_what_a_pull_request_would_make_of_its_base_is_built(
    with_gitea: Line, make_repo: MakeRepo, gitea: GiteaServer
) -> None:
    repo = make_repo("tea-merged")
    files = {**hello("the base", MACHINES[:1]), ".albatros.toml": "[on]\nmerge = true\n", "word": "old\n"}
    with_gitea.wait_green(repo, repo.push_files(files))
    token = gitea.person("max")
    fork = Fork(gitea, repo, "max", token, with_gitea.paths.root / "work" / "max")
    theirs = fork.commit({**files, "word": "theirs\n"})
    fork.push("HEAD:refs/heads/feature")
    number = fork.ask_for_a_pull("feature")
    with_gitea.wait_build(theirs, "waiting_approval", merged=True)
    repo.comment(number, f"/approve {theirs}")
    merged = with_gitea.wait_build(theirs, "succeeded", merged=True)
    assert (merged["trusted"], merged["merge_into"], merged["pull"]) == (False, "refs/heads/main", number)
    assert all(not image["publications"] for image in list_of(merged["images"]))
    assert f"merged {theirs} into main at {merged['base_commit']}" in with_gitea.log_of(merged, "evaluation")

    git(repo.work, "checkout", "--quiet", "-b", "feature")
    ours = repo.commit({**files, "new": "of the branch\n"})
    repo.push("HEAD:refs/heads/feature")
    repo.ask_for_a_pull("feature")
    assert with_gitea.wait_build(ours, "succeeded", merged=True)["trusted"] is True

    git(repo.work, "checkout", "--quiet", "main")
    base = repo.push_files({**files, "word": "ours\n"})
    refused = with_gitea.wait_build(theirs, "failed", merged=True)
    assert (refused["base_commit"], refused["reason"]) == (base, "merge_conflict")
    assert str(refused["message"]).endswith("does not merge with main: conflicts in word")
    assert with_gitea.wait_build(ours, "succeeded", merged=True)["base_commit"] == base

    def shown(commit: str) -> dict[str, str]:
        return {status.context: status.state for status in repo.statuses(commit) if "/hello@" not in status.context}

    wanted = {"albatros": "success", "albatros/merge": "failure", "albatros/merge:evaluation": "failure"}
    eventually(lambda: shown(theirs) == wanted, lambda: f"{shown(theirs)}\n{with_gitea.server.log}")
    wanted_of_ours = {"albatros": "success", "albatros/merge": "success"}
    eventually(lambda: shown(ours) == wanted_of_ours, lambda: f"{shown(ours)}\n{with_gitea.server.log}")


def test_an_own_branchs_pull_request_reuses_the_build_of_its_push(
    with_gitea: Line, make_repo: MakeRepo, gitea: GiteaServer
) -> None:
    repo = make_repo("tea-own")
    with_gitea.wait_green(repo, repo.push_files(hello("the base")))
    commit = repo.commit(hello("a branch"))
    repo.push("HEAD:refs/heads/feature")
    repo.ask_for_a_pull("feature")
    with_gitea.wait_green(repo, commit)
    eventually(lambda: with_gitea.build(commit).get("pull") == 1, lambda: str(with_gitea.build(commit)))
    assert with_gitea.sql(f"SELECT count(*) FROM builds WHERE \"commit\" = '{commit}'") == [(1,)]
    assert with_gitea.build(commit)["trusted"] is True


def test_a_replay_from_the_webhooks_history_builds_nothing(
    with_gitea: Line, make_repo: MakeRepo, gitea: GiteaServer
) -> None:
    repo = make_repo("tea-replayed")
    commit = repo.push_files(hello("once"))
    with_gitea.wait_green(repo, commit)
    of_push = "SELECT d.delivery_id FROM deliveries d JOIN builds b ON b.delivery_id = d.id WHERE b.\"commit\" = '{}'"
    ((delivery,),) = with_gitea.sql(of_push.format(commit))
    before = len(reasons_of(with_gitea))
    gitea.replay(repo.full_name, repo.hook, str(delivery))
    eventually(
        lambda: any("already known" in reason for reason in reasons_of(with_gitea)[before:]),
        lambda: "\n".join(reasons_of(with_gitea)),
    )
    assert with_gitea.sql(f"SELECT count(*) FROM builds WHERE \"commit\" = '{commit}'") == [(1,)]


def test_a_gitea_that_is_away_in_the_middle_shows_the_right_status_in_the_end(
    with_gitea: Line, make_repo: MakeRepo, gitea: GiteaServer
) -> None:
    repo = make_repo("tea-away")
    gate = with_gitea.paths.gate / "tea-away"
    commit = repo.push_files(hello("while nobody looks", MACHINES[:1], wait_for(gate)))
    # The builder waits, so that everything is cloned.
    eventually(lambda: "waiting" in with_gitea.log_of(with_gitea.build(commit), "packages."), lambda: str(commit))
    gitea.process.stop()
    try:
        with_gitea.open_gate("tea-away")
        with_gitea.wait_build(commit, "succeeded")
    finally:
        gitea.process.start()
    with_gitea.wait_green(repo, commit)
    states = {"albatros": "success", "albatros/hello@static": "success", "albatros/hello@hub": "success"}
    with_gitea.wait_statuses(repo, commit, states)
