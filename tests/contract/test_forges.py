"""One suite for every kind of forge: bare repositories, the other four as the tests fake them, and a real Gitea."""

import hashlib
import hmac
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from albatros.domain.inbound import Command, CommentCommand, Head, Inbound, PullAction
from albatros.domain.states import BuildState, Trigger
from albatros.errors import BadInputError, ForgeError, NotFoundError, UnauthorizedError
from albatros.forges.base import CommitStatus, Forge, Permission
from albatros.forges.gitlab import GitlabForge
from albatros.settings import ForgeKind
from tests.support.forge_worlds import (
    SECRET,
    BareWorld,
    FakeWorld,
    Message,
    RealGiteaWorld,
    World,
    bare_world,
    fake_world,
    real_gitea_world,
    sign,
)

FAKES = ("fake gitea", "fake forgejo", "fake github", "fake gitlab")
OFFLINE = ("git", *FAKES)
UNKNOWN = "1" * 40


def open_world(kind: str, request: pytest.FixtureRequest, stack: ExitStack) -> World:
    if kind == "git":
        return stack.enter_context(bare_world())
    if kind == "gitea":
        home: Path = request.getfixturevalue("tmp_path")
        return stack.enter_context(real_gitea_world(request.getfixturevalue("gitea"), home))
    return stack.enter_context(fake_world(ForgeKind(kind.removeprefix("fake "))))


@pytest.fixture(params=[*OFFLINE, "gitea"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        yield open_world(request.param, request, stack)


@dataclass(frozen=True, slots=True)
class Told:
    """A good webhook of a push, for tests that change it."""

    forge: Forge
    world: World
    message: Message

    @property
    def signature_header(self) -> str:
        return self.world.signature_header


@pytest.fixture(params=OFFLINE)
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    with ExitStack() as stack:
        world = open_world(request.param, request, stack)
        yield Told(world.forge, world, world.push("refs/heads/main", world.commit("first")))


def receive(world: World, message: Message) -> Inbound:
    world.forge.verify(*message)
    return world.forge.parse(*message)


@pytest.fixture(params=["git", "gitea"])
def real(request: pytest.FixtureRequest) -> Iterator[BareWorld | RealGiteaWorld]:
    """A forge with commits that change files."""
    with ExitStack() as stack:
        world = open_world(request.param, request, stack)
        assert isinstance(world, BareWorld | RealGiteaWorld)
        yield world


def test_a_push_tells_what_changed_and_what_its_message_asks_for(real: BareWorld | RealGiteaWorld) -> None:
    def commit(path: str, message: str) -> str:
        file = real.git.tree / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(message)
        real.git("add", "--all")
        return real.commit(message)

    (first,) = receive(real, real.push("refs/heads/topic", commit("flake.nix", "first"))).moves
    assert (first.paths, first.skip) == (None, False)
    commit("docs/ü b.md", "docs")
    newest = commit("flake.nix", "a title\n\nNothing to build: [ci skip]")
    (second,) = receive(real, real.push("refs/heads/topic", newest)).moves
    assert (second.paths, second.skip, second.title) == (("docs/ü b.md", "flake.nix"), True, "a title")
    head = real.forge.head("alba", "hello", "refs/heads/topic")
    assert head is not None
    assert (head.commit, head.skip) == (newest, True)


def test_push_of_a_new_branch(world: World) -> None:
    commit = world.commit("a title")
    inbound = receive(world, world.push("refs/heads/feature/x", commit))
    assert inbound.event in {"push", "Push Hook"}
    assert inbound.delivery_id
    assert inbound.ignored == ""
    assert inbound.repo is not None
    assert (inbound.repo.full_name, inbound.repo.private) == ("alba/hello", False)
    (move,) = inbound.moves
    assert (move.ref, move.before, move.after) == ("refs/heads/feature/x", None, commit)
    assert (move.trigger, move.trusted) == (Trigger.PUSH, True)
    assert (move.author, move.title) == ("alba", "a title")


def test_push_on_top_of_a_branch(world: World) -> None:
    first, second = world.commit("first"), world.commit("second")
    deliveries = [receive(world, world.push("refs/heads/main", commit)) for commit in (first, second)]
    (move,) = deliveries[1].moves
    assert (move.before, move.after) == (first, second)
    assert deliveries[0].delivery_id != deliveries[1].delivery_id


def test_deleted_branch(world: World) -> None:
    commit = world.commit("first")
    world.push("refs/heads/old", commit)
    (move,) = receive(world, world.push("refs/heads/old", None)).moves
    assert (move.ref, move.after) == ("refs/heads/old", None)
    assert world.forge.head("alba", "hello", "refs/heads/old") is None


def test_annotated_tag_is_its_commit(world: World) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    (move,) = receive(world, world.annotate("v1.0", commit)).moves
    assert (move.ref, move.after, move.trigger) == ("refs/tags/v1.0", commit, Trigger.TAG)
    head = world.forge.head("alba", "hello", "refs/tags/v1.0")
    assert head is not None
    assert head.commit == commit
    assert world.forge.heads("alba", "hello")["refs/tags/v1.0"] == commit


def test_only_the_own_signature_over_the_whole_body_counts(told: Told) -> None:
    headers, body = told.message
    told.forge.verify(headers, body)
    unsigned = {name: value for name, value in headers.items() if name != told.signature_header}
    others_headers = {"x-hub-signature-256": f"sha256={sign(body)}", "x-gogs-signature": sign(body)}
    others_headers |= {"x-hub-signature": sign(body), "x-gitea-signature": sign(body), "x-gitlab-token": SECRET}
    foreign = {name: value for name, value in others_headers.items() if name != told.signature_header} | unsigned
    others = hmac.new(b"another", body, hashlib.sha256).hexdigest()
    for wrong in (
        unsigned,
        foreign,
        *(
            {**unsigned, told.signature_header: value}
            for value in ("", "sha256=", others, f"sha256={others}", "é", "0")
        ),
    ):
        with pytest.raises(UnauthorizedError):
            told.forge.verify(wrong, body)
    with pytest.raises(UnauthorizedError):
        told.forge.verify(headers, body + b" ")


def test_describes_its_repo_and_heads(world: World) -> None:
    first, second = world.commit("first"), world.commit("a title")
    world.push("refs/heads/main", first)
    world.push("refs/heads/feature/x", second)
    world.push("refs/tags/light", first)
    info = world.forge.describe("alba", "hello")
    assert (info.full_name, info.private, info.default_branch) == ("alba/hello", False, "main")
    heads = world.forge.heads("alba", "hello")
    assert heads == {"refs/heads/main": first, "refs/heads/feature/x": second, "refs/tags/light": first}
    assert world.forge.head("alba", "hello", "refs/heads/feature/x") == Head(second, "alba", "a title")
    assert world.forge.head("alba", "hello", "refs/heads/nothing") is None
    assert world.forge.head("alba", "hello", "refs/tags/main") is None
    with pytest.raises(NotFoundError):
        world.forge.describe("alba", "nothing")


@pytest.mark.parametrize("branch", ["feature/x#1", "a%2Fb", "50%", "a+b&c=d", "größe"])
def test_a_branch_is_found_whatever_its_name_means_in_an_address(world: World, branch: str) -> None:
    main, commit = world.commit("first"), world.commit("a title")
    ref = f"refs/heads/{branch}"
    world.push("refs/heads/main", main)
    world.push(ref, commit)
    assert world.forge.heads("alba", "hello")[ref] == commit
    found = world.forge.head("alba", "hello", ref)
    assert found is not None
    assert found.commit == commit


def test_more_heads_than_one_page(world: World) -> None:
    commit = world.commit("first")
    refs = [f"refs/heads/b{number:03}" for number in range(120)]
    world.push_many(refs, commit)
    assert set(refs) <= world.forge.heads("alba", "hello").keys()


def test_last_status_of_a_context_wins(world: World) -> None:
    commit = world.commit("first")
    world.push("refs/heads/main", commit)

    def post(context: str, state: BuildState, description: str) -> None:
        status = CommitStatus(commit, context, state, description, "https://ci.example.org/builds/1")
        world.forge.post_status("alba", "hello", status)

    url = "https://ci.example.org/builds/1"
    post("albatros", BuildState.QUEUED, "queued")
    post("albatros/packages.x86_64-linux.hello", BuildState.FAILED, "broken")
    assert world.status(commit, "albatros") == ("pending", "queued", url)
    for _ in range(2):
        post("albatros", BuildState.SUCCEEDED, "all done")
    assert world.status(commit, "albatros") == ("success", "all done", url)
    assert world.status(commit, "albatros/packages.x86_64-linux.hello") == ("failure", "broken", url)


@pytest.mark.parametrize("state", list(BuildState))
def test_every_state_has_a_status(state: BuildState) -> None:
    with bare_world() as world:
        commit = world.commit("first")
        world.push("refs/heads/main", commit)
        world.forge.post_status("alba", "hello", CommitStatus(commit, "albatros", state, "text", "url"))
        shown = world.status(commit, "albatros")
    assert shown is not None
    assert shown[0] in {"pending", "success", "failure", "error"}
    assert (shown[0] == "success") == (state in {BuildState.SUCCEEDED, BuildState.SKIPPED})


def test_status_of_an_unknown_commit_is_refused(world: World) -> None:
    with pytest.raises(ForgeError):
        world.forge.post_status("alba", "hello", CommitStatus(UNKNOWN, "albatros", BuildState.FAILED, "text", "url"))


def test_a_runner_can_clone(world: World, tmp_path: Path) -> None:
    source = world.forge.clone_source("alba", "hello")
    assert source.password is None or source.password not in source.url
    assert source.password is None or source.password not in repr(source)
    if not world.clones():
        return
    commit = world.commit("first")
    world.push("refs/heads/main", commit)
    url = source.url
    if source.password is not None:
        url = url.replace("://", f"://{source.username}:{source.password}@")
    subprocess.run(["git", "clone", "-q", url, str(tmp_path / "clone")], check=True, capture_output=True)
    assert (tmp_path / "clone/.git").is_dir()


BROKEN = {
    "not JSON": b"{",
    "not UTF-8": b'{"ref": "\xff"}',
    "no object": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "number of many digits": b'{"ref": ' + b"1" * 5000 + b"}",
    "empty": b"{}",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_unreadable_bodies_are_bad_input(told: Told, body: bytes) -> None:
    headers, _ = told.message
    with pytest.raises(BadInputError):
        told.forge.parse(headers, body)


REFS = (
    "refs/heads/",
    "refs/heads/a\nb",
    "refs/heads/a b",
    "refs/heads/a..b",
    "refs/heads/../../x",
    "refs/heads//x",
    "refs/heads/-x",
    "refs/heads/x.lock",
    "refs/heads/\ud800",
    "refs/heads/" + "x" * 2000,
)


@pytest.mark.parametrize("ref", REFS, ids=range(len(REFS)))
def test_refs_that_git_refuses_are_bad_input(told: Told, ref: str) -> None:
    headers, body = told.message
    changed = body.replace(b'"refs/heads/main"', json.dumps(ref).encode())
    assert changed != body
    with pytest.raises(BadInputError):
        told.forge.parse(headers, changed)


@pytest.mark.parametrize(
    "name", ["alba", "alba/../hello", "../hello", "alba//hello", "alba/", "-x/hello", "alba/a b", "a" * 300]
)
def test_names_that_are_no_repos_are_bad_input(told: Told, name: str) -> None:
    headers, body = told.message
    changed = body.replace(b'"alba/hello"', json.dumps(name).encode())
    assert changed != body
    with pytest.raises(BadInputError):
        told.forge.parse(headers, changed)


def test_only_a_gitlab_has_groups_in_groups(told: Told) -> None:
    headers, body = told.message
    nested = body.replace(b'"alba/hello"', b'"alba/lab/hello"')
    if isinstance(told.forge, GitlabForge):
        told.forge.parse(headers, nested)
    else:
        with pytest.raises(BadInputError):
            told.forge.parse(headers, nested)


@pytest.mark.parametrize("which", ["delivery", "event"])
@pytest.mark.parametrize("value", ["", "x" * 300, "a\nb", "é"])
def test_headers_are_checked(told: Told, which: str, value: str) -> None:
    headers, body = told.message
    name = told.world.delivery_header if which == "delivery" else told.world.event_header
    with pytest.raises(BadInputError):
        told.forge.parse({**headers, name: value}, body)


def test_other_events_are_recorded_with_a_reason(told: Told) -> None:
    headers, body = told.message
    for event in ("ping", "create", "pull_request", "release", "something", "Release Hook", "Job Hook"):
        inbound = told.forge.parse({**headers, told.world.event_header: event}, body)
        assert inbound.moves == ()
        assert inbound.ignored


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest) -> Iterator[FakeWorld]:
    with fake_world(ForgeKind(request.param.removeprefix("fake "))) as world:
        yield world


@pytest.mark.parametrize("action", list(PullAction))
@pytest.mark.parametrize("fork", [True, False])
def test_what_happens_to_a_pull_request_is_told(fake: FakeWorld, action: PullAction, fork: bool) -> None:
    commit = fake.commit("a change")
    inbound = receive(fake, fake.pull(action, commit, fork=fork))
    assert (inbound.moves, inbound.ignored) == ((), "")
    assert inbound.pull is not None
    pull = inbound.pull.pull
    assert (inbound.pull.action, inbound.pull.sender, pull.author) == (action, "eve", "eve")
    assert (pull.number, pull.commit, pull.branch, pull.base_ref) == (7, commit, "feature", "refs/heads/main")
    assert (pull.from_fork, pull.open) == (fork, action is not PullAction.CLOSED)
    assert pull.label == ("eve/hello:feature" if fork else "feature")
    assert fake.forge.head("alba", "hello", pull.ref) == (
        Head(commit, "eve", "a change") if action is not PullAction.CLOSED else None
    )
    asked = fake.forge.pull("alba", "hello", 7)
    assert asked is not None
    assert (asked.ref, asked.commit, asked.author, asked.from_fork) == (pull.ref, commit, "eve", fork)
    assert [one.number for one in fake.forge.open_pulls("alba", "hello")] == ([7] if pull.open else [])
    assert fake.forge.pull("alba", "hello", 8) is None


def test_new_comments_are_commands_and_others_are_not(fake: FakeWorld) -> None:
    commit = fake.commit("first")
    told = receive(fake, fake.comment(f"/approve {commit}"))
    assert told.command == CommentCommand(Command.APPROVE, "12", "alba", 7, commit)
    assert (told.moves, told.ignored) == ((), "")
    for message in (
        fake.comment(f"/approve {commit}", edited=True),
        fake.comment(f"/approve {commit}", on_pull=False),
        fake.comment(f"I would /approve {commit}"),
        fake.comment(f"/approve {commit[:10]}"),
    ):
        ignored = receive(fake, message)
        assert (ignored.command, bool(ignored.ignored)) == (None, True)


def test_the_forge_says_what_a_person_may_do(fake: FakeWorld) -> None:
    roles = {"admin": Permission.ADMIN, "write": Permission.WRITE, "read": Permission.READ}
    if "gitlab" in fake.event_header:
        roles = {"maintainer": Permission.ADMIN, "developer": Permission.WRITE, "reporter": Permission.READ}
    fake.repo.private = True
    fake.repo.people = {f"a-{role}": role for role in roles}
    for role, permission in roles.items():
        assert fake.forge.permission("alba", "hello", f"a-{role}") is permission
    assert fake.forge.permission("alba", "hello", "nobody") is Permission.NONE
    assert fake.forge.permission("alba", "nothing", "a-read") is Permission.NONE


def test_a_login_that_is_somebody_elses_by_now_may_nothing(fake: FakeWorld) -> None:
    fake.repo.private = True
    fake.repo.people = {"ines": "maintainer" if "gitlab" in fake.event_header else "admin"}
    assert fake.forge.permission("alba", "hello", "ines", "1") is Permission.ADMIN
    assert fake.forge.permission("alba", "hello", "ines", "2") is Permission.NONE


@pytest.mark.parametrize("state", list(BuildState))
def test_every_state_is_a_word_of_the_forge(fake: FakeWorld, state: BuildState) -> None:
    commit = fake.commit("first")
    status = CommitStatus(commit, "albatros", state, "text", "url", "refs/heads/main")
    for _ in range(2):
        fake.forge.post_status("alba", "hello", status)
    shown = fake.status(commit, "albatros")
    assert shown is not None
    assert (shown[0] == "success") == (state in {BuildState.SUCCEEDED, BuildState.SKIPPED})


def test_a_repo_without_any_commit_has_no_heads(fake: FakeWorld) -> None:
    assert fake.forge.heads("alba", "hello") == {}
    assert fake.forge.head("alba", "hello", "refs/heads/main") is None
