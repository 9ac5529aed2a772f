"""Two real servers on one PostgreSQL: both answer, both work, and one goes on without the other."""

import hashlib
import hmac
import json
import re
import signal
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import httpx
import pytest

from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.postgres import PostgresCluster, empty_database
from tests.services.registry import RegistryServer
from tests.support.bare_repo import BareRepo
from tests.support.chaos import scripted
from tests.support.crash_server import POINT
from tests.support.flakes import AMD64, elf, hello, wait_for
from tests.support.gitea_repo import GiteaRepo
from tests.support.line import OWNER
from tests.support.nomad_exchanges import Talk
from tests.support.nomad_worlds import KINDS, SimulatedWorld, nomad_world
from tests.support.operator import run
from tests.support.scripted_runner import ScriptedRunners
from tests.support.server_process import SERVE, ServerProcess
from tests.support.servers import PATIENCE, Servers, live_events, make_servers
from tests.support.work_tree import Project
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry", "postgresql")
ONE = [AMD64]
CHANGES: dict[str, dict[str, object]] = {"limits": {"lease_seconds": 10}, "executor": {"slots": 1}}
TEA_SECRET = "a-secret-of-gitea"
ROUNDS = 3


@pytest.fixture
def servers(hub: RegistryServer, postgres_url: str) -> Iterator[Servers]:
    """Two servers of one slot each, not started."""
    with make_servers(hub, postgres_url, CHANGES) as made:
        yield made


@pytest.fixture(scope="module")
def both(hub: RegistryServer, postgres_cluster: PostgresCluster) -> Iterator[Servers]:
    """Two that run, for tests that stop neither."""
    with empty_database(postgres_cluster) as url, make_servers(hub, url, CHANGES) as made:
        made.start()
        yield made


def repo_at(servers: Servers, name: str, server: ServerProcess) -> BareRepo:
    """A repo whose pushes are told to this server."""
    paths = servers.line.paths
    return BareRepo(paths.git, f"{OWNER}/{name}", f"{server.url}/webhooks/home", paths.secret)


def push_held(servers: Servers, repo: Project, gate: str) -> str:
    """Push a commit whose one package waits for a gate; the commit."""
    return repo.push_files(hello(f"made by {gate}", ONE, wait_for(servers.line.paths.gate / gate)))


def check_program(servers: Servers, name: str, word: str) -> None:
    for remote in servers.line.remotes(name):
        assert remote.pull("main", AMD64) == elf(AMD64, word)


def test_both_are_pushed_to_and_both_build(both: Servers) -> None:
    names = {f"to-{end}": server for end, server in (("one", both.first), ("another", both.second))}
    repos = {name: repo_at(both, name, server) for name, server in names.items()}
    commits = {name: push_held(both, repo, name) for name, repo in repos.items()}
    # Each has one slot, so two that wait at once wait on two servers.
    executors = {both.running(commit).executor for commit in commits.values()}
    assert len(executors) == 2
    for name, repo in repos.items():
        both.line.open_gate(name)
        both.wait_green(repo, commits[name])
        check_program(both, name, f"made by {name}")
    more = [(repo, repo.push_files(hello(f"once more by {name}", ONE))) for name, repo in repos.items()]
    for repo, commit in more:
        both.wait_green(repo, commit)
    both.ends_well()


def signed_push(servers: Servers, repo: str, commit: str) -> tuple[bytes, dict[str, str]]:
    """A delivery as the hook sends it."""
    body = json.dumps(
        {"repo": repo, "refs": [{"ref": "refs/heads/main", "before": "0" * 40, "after": commit}]}
    ).encode()
    digest = hmac.new(servers.line.secret.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "Content-Type": "application/json",
        "X-Albatros-Event": "push",
        "X-Albatros-Delivery": str(uuid.uuid4()),
        "X-Albatros-Signature": f"sha256={digest}",
    }


def test_the_same_delivery_at_both_makes_one_build(both: Servers) -> None:
    for number in range(ROUNDS):
        repo = repo_at(both, f"told-twice-{number}", both.first)
        commit = repo.commit(hello("told twice", ONE))
        # Without its hook, which would tell of it too.
        (repo.bare / "hooks" / "post-receive").unlink()
        repo.push()
        body, headers = signed_push(both, repo.full_name, commit)

        def send(server: ServerProcess, body: bytes = body, headers: dict[str, str] = headers) -> tuple[int, object]:
            request = urllib.request.Request(f"{server.url}/webhooks/home", body, headers, method="POST")
            return server.send(request)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, [both.first, both.second] * 2))
        assert sorted(status for status, _ in answers) == [200, 200, 200, 202]
        assert len({json.dumps(answer, sort_keys=True) for _, answer in answers}) == 1
        assert both.sql(f"SELECT count(*) FROM builds WHERE commit = '{commit}'") == [(1,)]
        both.wait_green(repo, commit)
    both.ends_well()


def test_a_log_and_events_are_followed_at_the_other_server(both: Servers) -> None:
    repo = repo_at(both, "followed", both.first)
    commit = push_held(both, repo, "followed")
    running = both.running(commit)
    other = both.other(both.whose(running))
    with (
        live_events(other, f"/api/v1/jobs/{running.job}/log/live") as log,
        live_events(other, "/api/v1/events") as events,
    ):
        seen = ""
        while "waiting" not in seen:
            kind, data = next(log)
            assert kind == "log"
            seen += str(data["text"])
        assert "let go" not in seen
        both.line.open_gate("followed")
        kind, data = next(log)
        while kind != "end":
            seen += str(data["text"])
            kind, data = next(log)
        assert data["state"] == "succeeded"
        assert "let go" in seen
        happened = next(kind for kind, _ in events if kind in {"build.succeeded", "build.failed"})
        assert happened == "build.succeeded"
    for server in (both.first, both.second):
        assert server.text(f"/api/v1/jobs/{running.job}/log") == seen


def test_a_login_on_one_holds_on_the_other(both: Servers) -> None:
    config = str(both.line.paths.config)
    made = run(both.line, "token", "create", "operator", "--scope", "admin", "--config", config)
    token = next(word for word in made.split() if word.startswith("alb_"))
    first, second = both.first.url, both.second.url
    with httpx.Client(headers={"Origin": first}) as browser, httpx.Client() as caller:
        logged_in = browser.post(f"{first}/login", data={"token": token})
        assert logged_in.status_code == 303
        # Cookies know no ports, so it is sent to the second one too.
        page = browser.get(f"{first}/settings").text
        form_token = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
        assert form_token is not None
        assert "operator" in browser.get(f"{second}/settings").text
        form = {"name": "made-there", "scope": "read", "days": "3"}
        browser.headers["Origin"] = second
        refused = browser.post(f"{second}/settings/tokens", data=form)
        assert refused.status_code == 403
        answer = browser.post(f"{second}/settings/tokens", data={**form, "form_token": form_token[1]})
        assert answer.status_code == 200
        new = re.search(r"alb_[A-Za-z0-9_-]+", answer.text)
        assert new is not None
        bearer = {"Authorization": f"Bearer {new[0]}"}
        assert caller.get(f"{first}/api/v1/builds", headers=bearer).status_code == 200
        run(both.line, "token", "revoke", "operator", "--config", config)
        assert browser.get(f"{second}/settings").status_code == 401
        assert browser.get(f"{first}/settings").status_code == 401


def test_a_server_without_a_web_part_has_to_be_told_where_its_runners_reach_one(servers: Servers) -> None:
    servers.second.launch((*SERVE, "--roles", "scheduler"))
    assert servers.second.wait() == 2
    assert "server.url" in servers.second.log


def test_a_server_with_another_blob_store_does_not_start_until_it_has_the_shared_one(servers: Servers) -> None:
    servers.first.start()
    own = servers.line.paths.root / "blobs-of-its-own"
    shared = servers.second.config.read_text()
    servers.second.config.write_text(shared.replace(f"dir:{servers.line.paths.root / 'blobs'}", f"dir:{own}"))
    servers.second.launch()
    assert servers.second.wait() == 2
    assert f"dir:{own} is not the blob store that this database belongs to: set store.url" in servers.second.log
    said = run(servers.line, "doctor", "--config", str(servers.second.config), code=1)
    assert "is not the blob store" in said
    servers.second.config.write_text(shared)
    servers.second.start()
    assert "takes and gives a blob" in run(servers.line, "doctor", "--config", str(servers.second.config))


def test_roles_that_are_split_bring_a_push_to_green(hub: RegistryServer, postgres_url: str) -> None:
    with make_servers(hub, postgres_url) as servers:
        servers.share_address(servers.first)
        servers.first.start((*SERVE, "--roles", "web"))
        servers.second.start((*SERVE, "--roles", "scheduler,publisher"))
        repo = repo_at(servers, "split", servers.first)
        commit = repo.push_files(hello("split", ONE))
        servers.wait_green(repo, commit)
        check_program(servers, "split", "split")
        servers.ends_well()
        with pytest.raises(httpx.ConnectError):
            httpx.get(servers.second.url)
        status = repo.status(commit)
        assert status is not None
        assert status.url.startswith(f"{servers.first.url}/builds/")
        assert servers.first.stop() == servers.second.stop() == 0


def test_what_a_killed_server_was_publishing_is_published_by_the_other(servers: Servers) -> None:
    first, second = servers.first, servers.second
    first.start((*SERVE, "--roles", "web,scheduler"))
    second.start(("-m", "tests.support.crash_server", "--roles", "publisher"), {POINT: "tag-before-row"})
    repo = repo_at(servers, "half-published", first)
    commit = repo.push_files(hello("published once", ONE))
    assert second.wait(PATIENCE) == -signal.SIGKILL
    assert first.stop() == 0
    first.start()
    # Three tags: all of one registry's were moved; the other's were on their way, or ended, or not begun.
    assert servers.end_leases_of_pushes() in {3, 6}
    servers.wait_green(repo, commit)
    check_program(servers, "half-published", "published once")
    servers.ends_well()
    for remote in servers.line.remotes("half-published"):
        assert remote.tags() == {commit, "main", "latest"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_nomad_is_shared_and_one_server_goes_on_with_what_both_began(
    hub: RegistryServer, postgres_url: str, kind: str
) -> None:
    """Jobs of Nomad are of no server: when one dies, the other hears of all of them, and nothing is tried again."""
    runners = ScriptedRunners()
    with nomad_world(kind, clients=2) as world:
        if isinstance(world, SimulatedWorld):
            world.sim.outcome = scripted(runners)
            runners.close_gate("work")
        nomad = {"addresses": [world.url], "without_acl": True, "cpu_mhz": 50, "memory_mb": 256}
        executor = {"kind": "nomad", "nix_store": "private"}
        with make_servers(hub, postgres_url, {"executor": executor, "nomad": nomad}) as servers:
            servers.share_address(servers.second)
            servers.start()
            repos = [repo_at(servers, f"nomad-{n}", end) for n, end in enumerate((servers.first, servers.second))]
            commits = [push_held(servers, repo, "nomad") for repo in repos]
            running = [servers.running(commit) for commit in commits]
            servers.first.kill()
            runners.gates.setdefault("work", threading.Event()).set()
            servers.line.open_gate("nomad")
            for repo, commit in zip(repos, commits, strict=True):
                servers.wait_green(repo, commit)
            servers.ends_well()
            assert [servers.executors_of(one.job) for one in running] == [["nomad"], ["nomad"]]
            tokens = "/v1/vars?prefix=nomad/jobs/alb-"
            servers.wait_for(lambda: Talk(world).say("GET", tokens).response["body"] == [])
            assert len({one.attempt for one in runners.given}) == len(runners.given)


class TestOneIsKilled:
    """SIGKILL of the server whose Job runs: the other one takes up the rest."""

    def test_with_bare_repositories(self, servers: Servers) -> None:
        repo = repo_at(servers, "killed", servers.first)
        commit = self.kill(servers, repo, "killed")
        assert Counter((s.context, s.state) for s in repo.statuses(commit)) == {
            ("albatros", "success"): 1,
            ("albatros/hello@static", "success"): 1,
            ("albatros/hello@hub", "success"): 1,
        }

    @needs("gitea")
    def test_with_gitea(self, servers: Servers, gitea: GiteaServer) -> None:
        """Gitea keeps every post, so it can be told that each was made once."""
        forge = {"name": "tea", "kind": "gitea", "url": gitea.url, "token": gitea.token, "webhook_secret": TEA_SECRET}
        servers.write_config({"forges": [{**forge, "repos": [f"{ADMIN}/*"]}]})
        work = servers.line.paths.root / "work" / "tea-killed"
        repo = GiteaRepo(gitea, "tea-killed", work, f"{servers.first.url}/webhooks/tea", TEA_SECRET)
        commit = self.kill(servers, repo, "tea-killed")
        listed = gitea.api("GET", f"/repos/{repo.full_name}/commits/{commit}/statuses?limit=50")
        posts = Counter(
            (one["context"], one["status"], one["description"]) for one in cast("list[dict[str, str]]", listed)
        )
        assert set(posts.values()) == {1}, posts
        assert "failure" not in {state for _, state, _ in posts}

    def kill(self, servers: Servers, repo: Project, name: str) -> str:
        """Push to the first, kill it while its runner waits, and follow everything to its end; the commit."""
        first, second = servers.first, servers.second
        first.start()
        commit = push_held(servers, repo, name)
        running = servers.running(commit)
        assert servers.whose(running) is first
        servers.wait_for(lambda: not servers.sql("SELECT id FROM status_reports WHERE sent < version"))
        second.start()
        first.kill()
        there = repo_at(servers, f"{name}-later", second) if isinstance(repo, BareRepo) else None
        later = there.push_files(hello("pushed to the one that lives", ONE)) if there is not None else ""

        lost = f"SELECT state, reason FROM attempts WHERE id = '{running.attempt}'"
        servers.wait_for(lambda: servers.sql(lost) == [("lost", "node_lost")])
        servers.line.open_gate(name)
        servers.wait_green(repo, commit)
        check_program(servers, name, f"made by {name}")
        if there is not None:
            servers.wait_green(there, later)
        servers.ends_well()
        executors = servers.executors_of(running.job)
        assert executors[0] != executors[-1]

        # Its runner still waits for it, and is heard no more.
        assert servers.sql(lost) == [("lost", "node_lost")]
        first.start()
        servers.wait_for(lambda: not list((servers.line.paths.data / "attempts").iterdir()))
        again = repo.push_files(hello("and it works again", ONE))
        servers.wait_green(repo, again)
        servers.ends_well()
        assert second.stop() == first.stop() == 0
        return commit
