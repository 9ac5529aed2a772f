"""The line with a real Gitea: its webhook, clones with its token, and statuses that it shows itself."""

from collections.abc import Callable, Iterator

import pytest

from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.registry import RegistryServer
from tests.support.flakes import HOST_SYSTEM, archives, derivation, flake, hello
from tests.support.gitea_repo import GiteaRepo
from tests.support.line import Line, list_of, make_line
from tests.support.published import check_published
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
    states = {status.context: status.state for status in repo.statuses(commit)}
    assert states == {"albatros": "success", "albatros/hello@static": "success", "albatros/hello@hub": "success"}
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
