"""Gitea: recorded webhooks, payloads with anything in any place, and an API that misbehaves."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from albatros.domain.inbound import Command, CommentCommand, HeadMoved, Pull, PullAction, PullEvent, RepoInfo
from albatros.domain.states import BuildState, Trigger
from albatros.errors import BadInputError, ForgeError, ForgeUnavailableError, NotFoundError, UnauthorizedError
from albatros.forges import rest
from albatros.forges.base import CommitStatus, Permission
from albatros.forges.gitea import GiteaForge
from albatros.forges.payload import secret_of_repo
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_gitea import FakeGitea, FakeRepo, fake_gitea
from tests.support.recorded import lowered
from tests.support.recorded import recorded as file_of

COMMIT = "2c30b63d8c7f9c3ae69965cc687aa4b054d4bec9"
STATUS = CommitStatus(COMMIT, "albatros", BuildState.FAILED, "text", "https://ci.example.org/builds/1")


def forge_at(url: str, token: str = "") -> GiteaForge:
    return GiteaForge(
        ForgeSettings(
            name="home", kind=ForgeKind.GITEA, url=url, token=SecretStr(token), webhook_secret=SecretStr("s3cret")
        )
    )


FORGE = forge_at("https://git.example.org/")


def recorded(name: str) -> tuple[dict[str, str], bytes]:
    return lowered(file_of(ForgeKind.GITEA, name))


@pytest.mark.parametrize("name", ["push", "create", "pull_request"])
def test_recorded_signatures_hold(name: str) -> None:
    FORGE.verify(*recorded(name))


def test_the_secret_of_a_repo_signs_for_that_repo_alone() -> None:
    """Gitea's pages show the secret of a webhook to every administrator of its repo."""
    shown = secret_of_repo("s3cret", "alba/hello")

    def signed(body: bytes) -> tuple[dict[str, str], bytes]:
        return {"x-gitea-signature": hmac.new(shown.encode(), body, hashlib.sha256).hexdigest()}, body

    _, body = recorded("push")
    FORGE.verify(*signed(body))
    for full_name in ("alba/keys", "Alba/hello", "", 7, None):
        repository = {**json.loads(body)["repository"], "full_name": full_name}
        with pytest.raises(UnauthorizedError):
            FORGE.verify(*signed(push(repository=repository)))
    for other in (b"{", b"[]", b"[" * 100_000, b"{}", b"\xff"):
        with pytest.raises(UnauthorizedError):
            FORGE.verify(*signed(other))


def test_recorded_push() -> None:
    inbound = FORGE.parse(*recorded("push"))
    assert inbound.delivery_id == "94a7fec3-b31e-4da9-986a-05998ddb339a"
    assert inbound.repo == RepoInfo("alba", "hello", private=False, default_branch="main")
    assert inbound.moves == (HeadMoved("refs/heads/feat", None, COMMIT, Trigger.PUSH, "alba", "add b"),)


def test_recorded_create_builds_nothing() -> None:
    inbound = FORGE.parse(*recorded("create"))
    assert inbound.event == "create"
    assert inbound.moves == ()
    assert inbound.ignored


def push(**changes: object) -> bytes:
    """The recorded push with other fields, signed."""
    _, body = recorded("push")
    return json.dumps({**json.loads(body), "before": "1ac6960ab0d9e50ff417086a05b8b026ec931f3f", **changes}).encode()


def test_what_a_push_changes_is_told_by_its_commits() -> None:
    headers, body = recorded("push")
    assert FORGE.parse(headers, body).moves[0].paths is None, "a new branch changes what it is compared with"
    assert FORGE.parse(headers, push()).moves[0].paths == ("b.txt",)
    several = [{"added": ["new"]}, {"removed": ["old"], "modified": ["a/b"], "added": None}]
    (move,) = FORGE.parse(headers, push(commits=several, total_commits=2)).moves
    assert move.paths == ("a/b", "new", "old")


@pytest.mark.parametrize(
    "changes",
    [
        {"total_commits": 6},
        {"total_commits": None},
        {"commits": []},
        {"commits": None},
        {"commits": [{"added": [1]}]},
        {"commits": [{"added": ["x" * 70_000]}]},
        {"commits": [{}]},
    ],
)
def test_what_is_not_told_in_full_is_not_known(changes: dict[str, object]) -> None:
    headers, _ = recorded("push")
    assert FORGE.parse(headers, push(**changes)).moves[0].paths is None


def test_a_message_that_asks_for_no_build() -> None:
    headers, body = recorded("push")
    assert not FORGE.parse(headers, body).moves[0].skip
    asking = with_field(body, ("head_commit", "message"), "docs\n\n[skip ci]\n")
    (move,) = FORGE.parse(headers, asking).moves
    assert (move.skip, move.title) == (True, "docs")


PULL = Pull(
    number=1,
    ref="refs/pull/1/head",
    commit=COMMIT,
    branch="feat",
    label="feat",
    from_fork=False,
    author="alba",
    title="t",
    base_ref="refs/heads/main",
    base_commit="1ac6960ab0d9e50ff417086a05b8b026ec931f3f",
)


def test_recorded_pull_request() -> None:
    inbound = FORGE.parse(*recorded("pull_request"))
    assert (inbound.event, inbound.ignored, inbound.moves) == ("pull_request", "", ())
    assert inbound.pull == PullEvent(PullAction.OPENED, "alba", PULL)


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("synchronized", PullAction.NEW_HEAD),
        ("reopened", PullAction.REOPENED),
        ("closed", PullAction.CLOSED),
        ("label_updated", PullAction.LABELLED),
    ],
)
def test_actions_on_a_pull_request(said: str, action: PullAction) -> None:
    headers, body = recorded("pull_request")
    pull = FORGE.parse(headers, with_field(body, ("action",), said)).pull
    assert pull is not None
    assert pull.action is action
    other = FORGE.parse(headers, with_field(body, ("action",), "edited"))
    assert (other.pull, other.ignored) == (None, "a pull request that was edited builds nothing")


HEADS = {"pull_request-fork": "opened", "pull_request-fork-sync": "new head", "pull_request-label": "labelled"}
HEADS |= {"pull_request-closed": "closed", "pull_request-reopened": "reopened"}


@pytest.mark.parametrize(("name", "action"), HEADS.items())
def test_recorded_pull_requests_of_a_fork(name: str, action: str) -> None:
    headers, body = recorded(name)
    FORGE.verify(headers, body)
    event = FORGE.parse(headers, body).pull
    assert event is not None
    assert event.action == action
    assert event.sender == ("eve" if name.startswith("pull_request-fork") else "alba")
    assert (event.pull.author, event.pull.from_fork, event.pull.label) == ("eve", True, "eve/hello:feature")
    assert event.pull.open == (action != "closed")


def test_recorded_comments() -> None:
    created, edited = (FORGE.parse(*recorded(f"issue_comment-{name}")) for name in ("created", "edited"))
    head = FORGE.parse(*recorded("pull_request-fork-sync")).pull
    assert created.command is not None
    assert head is not None
    assert (created.command.command, created.command.commit) == (Command.APPROVE, head.pull.commit)
    assert (created.command.author, created.command.pull) == ("alba", head.pull.number)
    assert (edited.command, bool(edited.ignored)) == (None, True)


def test_recorded_release_builds_nothing() -> None:
    inbound = FORGE.parse(*recorded("release"))
    assert (inbound.event, inbound.moves, "release" in inbound.ignored) == ("release", (), True)


@pytest.mark.parametrize("repo", [None, {}, {"id": 2}, {"id": "1"}])
def test_a_head_that_is_not_surely_the_repos_own_is_a_forks(repo: object) -> None:
    headers, body = recorded("pull_request")
    event = FORGE.parse(headers, with_field(body, ("pull_request", "head", "repo"), repo)).pull
    assert event is not None
    assert event.pull.from_fork


def comment(body: str, **changes: object) -> bytes:
    """A comment as Gitea 1.26 describes it (`IssueCommentPayload` in its modules/structs)."""
    repository = json.loads(recorded("push")[1])["repository"]
    value = {
        "action": "created",
        "issue": {"number": 7},
        "comment": {"id": 12, "user": {"login": "alba"}, "body": body},
        "sender": {"login": "alba"},
        "is_pull": True,
        "repository": repository,
    }
    return json.dumps(value | changes).encode()


@pytest.mark.parametrize(
    ("text", "command", "commit"),
    [
        ("/rerun", Command.RERUN, ""),
        ("  /cancel  \nplease", Command.CANCEL, ""),
        (f"/approve {COMMIT.upper()}\r\n", Command.APPROVE, COMMIT),
    ],
)
def test_commands_in_comments(text: str, command: Command, commit: str) -> None:
    headers = recorded("push")[0] | {"x-gitea-event": "issue_comment"}
    assert FORGE.parse(headers, comment(text)).command == CommentCommand(command, "12", "alba", 7, commit)


@pytest.mark.parametrize(
    "text", ["", "/approve", f"/approve {COMMIT[:12]}", "/approve HEAD", "please /rerun", "/rerun x"]
)
def test_other_comments_do_nothing(text: str) -> None:
    headers = recorded("push")[0] | {"x-gitea-event": "issue_comment"}
    inbound = FORGE.parse(headers, comment(text))
    assert (inbound.command, bool(inbound.ignored)) == (None, True)


@pytest.mark.parametrize(
    "changes", [{"action": "edited"}, {"action": "deleted"}, {"sender": {"login": "eve"}}, {"is_pull": False}]
)
def test_changed_comments_and_those_elsewhere_do_nothing(changes: dict[str, object]) -> None:
    headers = recorded("push")[0] | {"x-gitea-event": "issue_comment"}
    inbound = FORGE.parse(headers, comment(f"/approve {COMMIT}", **changes))
    assert (inbound.command, bool(inbound.ignored)) == (None, True)


def test_delete_event_deletes_the_head() -> None:
    headers, body = recorded("create")
    inbound = FORGE.parse({**headers, "x-gitea-event": "delete"}, body)
    assert inbound.moves == (HeadMoved("refs/heads/feat", None, None, Trigger.PUSH, "alba"),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    ("ref",),
    ("before",),
    ("after",),
    ("head_commit",),
    ("head_commit", "id"),
    ("head_commit", "message"),
    ("head_commit", "author"),
    ("pusher",),
    ("pusher", "login"),
    ("commits",),
    ("repository",),
    ("repository", "full_name"),
    ("repository", "private"),
    ("repository", "default_branch"),
)
REMOVED = object()


def with_field(body: bytes, path: tuple[str, ...], value: object) -> bytes:
    data: dict[str, Any] = json.loads(body)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data).encode()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), JSON | st.just(REMOVED), st.sampled_from(["push", "delete", "create"]))
def test_any_value_in_any_field_is_read_or_refused(path: tuple[str, ...], value: object, event: str) -> None:
    headers, body = recorded("push")
    try:
        inbound = FORGE.parse({**headers, "x-gitea-event": event}, with_field(body, path, value))
    except BadInputError:
        return
    for move in inbound.moves:
        for text in (move.ref, move.author, move.title):
            text.encode("utf-8")
            assert "\x00" not in text
        assert len(move.author) <= 255
        assert len(move.title) <= 255


def test_ten_thousand_commits_and_long_texts_are_read() -> None:
    headers, body = recorded("push")
    body = with_field(body, ("commits",), [{"id": COMMIT, "message": "x" * 1000}] * 10_000)
    body = with_field(body, ("head_commit", "message"), "y" * 1_000_000)
    (move,) = FORGE.parse(headers, body).moves
    assert len(move.title) <= 255


def test_addresses_in_a_payload_are_never_used() -> None:
    headers, body = recorded("push")
    body = with_field(body, ("repository", "clone_url"), "https://evil.example.org/x.git")
    assert FORGE.parse(headers, body).repo is not None
    assert FORGE.clone_source("alba", "hello").url == "https://git.example.org/alba/hello.git"


def test_the_token_is_beside_the_clone_address_and_in_no_text() -> None:
    source = forge_at("https://git.example.org", "t0ken-of-the-forge").clone_source("alba", "hello")
    assert (source.url, source.password) == ("https://git.example.org/alba/hello.git", "t0ken-of-the-forge")
    assert "t0ken" not in repr(source)


@pytest.fixture
def fake() -> Iterator[FakeGitea]:
    with fake_gitea() as fake:
        fake.repos["alba/hello"] = FakeRepo(commits={COMMIT}, branches={"main": COMMIT})
        yield fake


@pytest.fixture
def forge(fake: FakeGitea) -> Iterator[GiteaForge]:
    forge = forge_at(fake.url, fake.token)
    yield forge
    forge.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_answers_that_may_get_better(fake: FakeGitea, forge: GiteaForge, status: int) -> None:
    fake.answer = (status, {}, b"oops")
    with pytest.raises(ForgeUnavailableError, match=str(status)):
        forge.post_status("alba", "hello", STATUS)
    fake.answer = None
    forge.post_status("alba", "hello", STATUS)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_answers_that_are_for_good(fake: FakeGitea, forge: GiteaForge, status: int) -> None:
    fake.answer = (status, {}, b'{"message": "because\\nof it"}')
    with pytest.raises(ForgeError, match=str(status)) as raised:
        forge.post_status("alba", "hello", STATUS)
    assert not isinstance(raised.value, ForgeUnavailableError)
    assert "because" in raised.value.detail
    assert fake.token not in raised.value.detail


def test_redirects_are_not_followed(fake: FakeGitea, forge: GiteaForge) -> None:
    with fake_gitea() as other:
        fake.answer = (307, {"Location": f"{other.url}/api/v1/repos/alba/hello"}, b"")
        with pytest.raises(ForgeError, match="redirect"):
            forge.describe("alba", "hello")
        assert other.calls == []


def test_nobody_there(fake: FakeGitea) -> None:
    with pytest.raises(ForgeUnavailableError):
        forge_at("http://127.0.0.1:1").head("alba", "hello", "refs/heads/main")
    wrong = forge_at(fake.url, "another-token")
    with pytest.raises(ForgeError, match="token"):
        wrong.describe("alba", "hello")
    wrong.close()


@pytest.mark.parametrize("answer", [b"<html>", b"\xff", b"[" * 100_000, b"[]", b"{}", b'{"full_name": 1}', b"null"])
def test_answers_that_cannot_be_read(fake: FakeGitea, forge: GiteaForge, answer: bytes) -> None:
    fake.answer = (200, {}, answer)
    with pytest.raises((ForgeError, NotFoundError)):
        forge.describe("alba", "hello")


def test_answers_without_end(fake: FakeGitea, forge: GiteaForge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_ANSWER", 1000)
    fake.answer = (200, {}, b'"' + b"x" * 2000 + b'"')
    with pytest.raises(ForgeError, match="more than 1000 bytes"):
        forge.describe("alba", "hello")


def test_pages_without_end(fake: FakeGitea, forge: GiteaForge) -> None:
    fake.answer = (200, {}, json.dumps([{"name": "main", "commit": {"id": COMMIT}}]).encode())
    with pytest.raises(ForgeError, match="pages"):
        forge.heads("alba", "hello")
    assert len(fake.calls) < 300


def test_names_are_quoted_into_paths(fake: FakeGitea, forge: GiteaForge) -> None:
    forge.head("alba", "hello", "refs/heads/a#b/c%d")
    assert fake.calls == ["GET /api/v1/repos/alba/hello/branches/a%23b/c%25d"]


@pytest.mark.parametrize(
    ("said", "permission"),
    [("owner", "admin"), ("admin", "admin"), ("write", "write"), ("read", "read"), ("none", "none"), ("new", "none")],
)
def test_permissions_of_people(fake: FakeGitea, said: str, permission: str) -> None:
    fake.repos["alba/hello"] = FakeRepo(people={"eve": said})
    forge = forge_at(fake.url, fake.token)
    assert forge.permission("alba", "hello", "eve") is Permission(permission)
    assert forge.permission("alba", "hello", "nobody") is Permission.NONE
    assert forge.permission("alba", "nothing", "eve") is Permission.NONE
    forge.close()


def test_pull_requests_out_of_the_api(fake: FakeGitea) -> None:
    one = json.loads(recorded("pull_request")[1])["pull_request"]
    repo = fake.repos["alba/hello"] = FakeRepo()
    repo.pulls = {n: one | {"number": n, "state": "open" if n > 1 else "closed"} for n in range(1, 61)}
    forge = forge_at(fake.url, fake.token)
    assert [pull.number for pull in forge.open_pulls("alba", "hello")] == list(range(2, 61))
    assert forge.pull("alba", "hello", 1) == replace(PULL, open=False)
    assert forge.pull("alba", "hello", 61) is None
    heads = [forge.head("alba", "hello", f"refs/pull/{number}/head") for number in (1, 2, 61)]
    assert [head and head.commit for head in heads] == [None, COMMIT, None]
    repo.pulls[2] = {"number": 2, "state": "open"}
    with pytest.raises(ForgeError, match="cannot be read"):
        forge.pull("alba", "hello", 2)
    forge.close()
