"""GitLab: signatures of Standard Webhooks, the older token, delivery ids, people, statuses that are refused again."""

import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from albatros.domain.states import BuildState
from albatros.errors import BadInputError, ConfigError, ForgeError, UnauthorizedError
from albatros.forges.base import CommitStatus, Permission
from albatros.forges.gitlab import GitlabForge
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_forge import FakeRepo
from tests.support.fake_gitlab import FakeGitlab, fake_gitlab
from tests.support.forge_worlds import GITLAB_TOKEN, gitlab_headers

COMMIT = "2c30b63d8c7f9c3ae69965cc687aa4b054d4bec9"
BODY = b'{"object_kind": "push"}'
# The example of Standard Webhooks: key, id, time, body and signature.
DOCUMENTED_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DOCUMENTED_BODY = b'{"test": 2432232314}'
DOCUMENTED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def forge_at(url: str = "https://gitlab.example.org", token: str = "", secret: str = GITLAB_TOKEN) -> GitlabForge:
    return GitlabForge(
        ForgeSettings(
            name="lab", kind=ForgeKind.GITLAB, url=url, token=SecretStr(token), webhook_secret=SecretStr(secret)
        )
    )


def test_the_documented_signature_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1614265330.0)
    forge = forge_at(secret=DOCUMENTED_SECRET)
    forge.verify(DOCUMENTED, DOCUMENTED_BODY)
    others = "v1,AAAA v2,g0hM9SsE v1a,x"
    forge.verify({**DOCUMENTED, "webhook-signature": f"{others} {DOCUMENTED['webhook-signature']}"}, DOCUMENTED_BODY)
    for changed in (
        {"webhook-signature": DOCUMENTED["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": others},
        {"webhook-signature": ""},
        {"webhook-id": "msg_another"},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "now"},
    ):
        with pytest.raises(UnauthorizedError):
            forge.verify({**DOCUMENTED, **changed}, DOCUMENTED_BODY)


@pytest.mark.parametrize(("seconds", "good"), [(0, True), (-290, True), (290, True), (-310, False), (310, False)])
def test_a_signature_holds_for_five_minutes(seconds: int, *, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = gitlab_headers(BODY, "d1", 1_700_000_000 + seconds)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    if good:
        forge_at().verify(headers, BODY)
    else:
        with pytest.raises(UnauthorizedError, match="clock"):
            forge_at().verify(headers, BODY)


def test_a_bad_signature_beside_a_good_token_is_refused() -> None:
    good = gitlab_headers(BODY, "d1")
    for headers in (
        {**good, "webhook-signature": "v1,AAAA", "x-gitlab-token": GITLAB_TOKEN},
        {"x-gitlab-token": GITLAB_TOKEN},
    ):
        with pytest.raises(UnauthorizedError):
            forge_at().verify(headers, BODY)


def test_the_older_token_counts_where_no_signing_token_is_configured() -> None:
    forge = forge_at(secret="an-older-secret-token")
    forge.verify({"x-gitlab-token": "an-older-secret-token"}, BODY)
    for headers in (
        {},
        {"x-gitlab-token": ""},
        {"x-gitlab-token": "another"},
        {**gitlab_headers(BODY, "d1"), "x-gitlab-token": "an-older-secret-token"},
    ):
        with pytest.raises(UnauthorizedError):
            forge.verify(headers, BODY)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_é", "whsec_not base64"])
def test_a_signing_token_that_is_none_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match="base64"):
        forge_at(secret=secret)


PUSH = (
    b'{"ref": "refs/heads/main", "before": "%s", "after": "%s", "project":'
    b' {"path_with_namespace": "alba/hello", "visibility_level": 0, "default_branch": "main"}}'
) % (b"0" * 40, COMMIT.encode())


def test_delivery_ids_of_every_version() -> None:
    forge = forge_at()
    event = {"x-gitlab-event": "Push Hook", "x-gitlab-event-uuid": "shared"}
    assert forge.parse({**event, "webhook-id": "w", "idempotency-key": "i"}, PUSH).delivery_id == "w"
    assert forge.parse({**event, "idempotency-key": "i"}, PUSH).delivery_id == "i"
    older = [forge.parse(event, body).delivery_id for body in (PUSH, PUSH, PUSH + b" ")]
    assert older[0] == older[1] != older[2]
    with pytest.raises(BadInputError):
        forge.parse({"x-gitlab-event": "Push Hook"}, PUSH)


def test_a_project_in_a_subgroup_has_the_whole_group_as_its_owner() -> None:
    body = PUSH.replace(b"alba/hello", b"alba/group/hello")
    inbound = forge_at().parse({"x-gitlab-event": "Push Hook", "webhook-id": "d"}, body)
    assert inbound.repo is not None
    assert (inbound.repo.owner, inbound.repo.name) == ("alba/group", "hello")


@pytest.mark.parametrize("name", [b"alba/../hello", b"alba//hello", b"alba/-/hello", b"hello", b"a/" * 20 + b"hello"])
def test_a_project_whose_name_cannot_be_is_refused(name: bytes) -> None:
    with pytest.raises(BadInputError):
        forge_at().parse({"x-gitlab-event": "Push Hook", "webhook-id": "d"}, PUSH.replace(b"alba/hello", name))


@pytest.fixture
def fake() -> Iterator[FakeGitlab]:
    with fake_gitlab() as fake:
        fake.repos["alba/hello"] = FakeRepo(commits={COMMIT}, branches={"main": COMMIT})
        yield fake


def test_a_project_in_a_subgroup_is_asked_for_cloned_and_shown_under_its_whole_name(fake: FakeGitlab) -> None:
    fake.repos["alba/group/hello"] = FakeRepo(commits={COMMIT}, branches={"main": COMMIT}, people={"alba": "owner"})
    forge = forge_at(fake.url, fake.token)
    assert forge.describe("alba/group", "hello").full_name == "alba/group/hello"
    assert forge.heads("alba/group", "hello") == {"refs/heads/main": COMMIT}
    assert forge.permission("alba/group", "hello", "alba") is Permission.ADMIN
    assert forge.clone_source("alba/group", "hello").url == f"{fake.url}/alba/group/hello.git"
    forge.post_status("alba/group", "hello", CommitStatus(COMMIT, "albatros", BuildState.SUCCEEDED, "well", "http://x"))
    assert [status["status"] for status in fake.repos["alba/group/hello"].statuses.values()] == ["success"]
    forge.close()


@pytest.fixture
def forge(fake: FakeGitlab) -> Iterator[GitlabForge]:
    forge = forge_at(fake.url, fake.token)
    yield forge
    forge.close()


def test_a_move_that_gitlab_refuses_since_it_is_made_is_taken_as_made(fake: FakeGitlab, forge: GitlabForge) -> None:
    def post(state: BuildState) -> str:
        forge.post_status("alba", "hello", CommitStatus(COMMIT, "albatros", state, "t", "u", "refs/heads/main"))
        return str(fake.repos["alba/hello"].statuses[COMMIT, "albatros"]["status"])

    states = [BuildState.QUEUED, BuildState.QUEUED, BuildState.RUNNING, BuildState.PUBLISHING, BuildState.QUEUED]
    assert [post(state) for state in states] == ["pending", "pending", "running", "running", "running"]
    assert post(BuildState.SUCCEEDED) == "success"
    assert post(BuildState.QUEUED) == "pending"
    assert fake.repos["alba/hello"].statuses[COMMIT, "albatros"]["ref"] == "main"


def test_a_move_that_gitlab_refuses_for_another_reason_is_an_error(fake: FakeGitlab, forge: GitlabForge) -> None:
    status = CommitStatus(COMMIT, "albatros", BuildState.FAILED, "t", "u")
    fake.answer = (400, {}, b'{"message": "Cannot transition status via :drop from :success"}')
    with pytest.raises(ForgeError):
        forge.post_status("alba", "hello", status)
    fake.answer = (400, {}, b'{"message": "The pipeline is archived"}')
    with pytest.raises(ForgeError, match="archived"):
        forge.post_status("alba", "hello", status)


def test_people_who_are_blocked_or_only_guests_may_do_nothing(fake: FakeGitlab, forge: GitlabForge) -> None:
    repo = fake.repos["alba/hello"]
    repo.private = True
    repo.people = {"was": "owner", "visitor": "guest", "owner": "owner"}
    fake.blocked = {"was"}
    assert forge.permission("alba", "hello", "was") is Permission.NONE
    assert forge.permission("alba", "hello", "visitor") is Permission.NONE
    assert forge.permission("alba", "hello", "owner") is Permission.ADMIN
    assert forge.permission("alba", "hello", "x" * 1000) is Permission.NONE
    repo.private = False
    assert forge.permission("alba", "hello", "visitor") is Permission.READ
    assert forge.permission("alba", "hello", "was") is Permission.READ
