"""Every webhook in tests/fixtures/webhooks: its signature holds, and it is read as what it is."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from albatros.bootstrap import build_forge
from albatros.domain.inbound import Command, Inbound, PullAction
from albatros.domain.states import Trigger
from albatros.errors import UnauthorizedError
from albatros.forges.base import Forge
from albatros.settings import ForgeKind
from tests.support.forge_worlds import GITLAB_TOKEN, SECRET, settings
from tests.support.recorded import FOLDERS, WEBHOOKS, lowered, names, recorded

ALL = [(kind, name) for kind in FOLDERS for name in names(kind)]


def forge_of(kind: ForgeKind) -> Forge:
    return build_forge(settings(kind, "https://forge.example.org", "", secret_of(kind)))


def secret_of(kind: ForgeKind) -> str:
    return GITLAB_TOKEN if kind is ForgeKind.GITLAB else SECRET


@pytest.fixture
def signed_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock shows when GitLab's were signed."""
    headers, _ = lowered(recorded(ForgeKind.GITLAB, "push"))
    monkeypatch.setattr(time, "time", lambda: float(headers["webhook-timestamp"]))


@pytest.mark.usefixtures("signed_now")
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_signature_holds_for_this_body_alone(kind: ForgeKind, name: str) -> None:
    headers, body = lowered(recorded(kind, name))
    forge = forge_of(kind)
    forge.verify(headers, body)
    for other in (body + b" ", body[:-1], b""):
        with pytest.raises(UnauthorizedError):
            forge.verify(headers, other)
    forge.parse(headers, body)


@pytest.mark.parametrize("name", names(ForgeKind.FORGEJO))
def test_forgejo_reads_its_own_headers_alone(name: str) -> None:
    headers, body = lowered(recorded(ForgeKind.FORGEJO, name))
    forge = forge_of(ForgeKind.FORGEJO)
    assert forge.parse(headers, body) == forge_of(ForgeKind.GITEA).parse(headers, body)
    theirs = {key: value for key, value in headers.items() if "forgejo" not in key}
    with pytest.raises(UnauthorizedError):
        forge.verify(theirs, body)


def test_the_readme_names_every_file() -> None:
    text = (WEBHOOKS / "README.md").read_text()
    for kind, folder in FOLDERS.items():
        assert f"`{folder.name}/`" in text
        missing = [name for name in names(kind) if f"`{name}`" not in text]
        assert missing == [], folder.name
        bodies = {Path(path).stem for path in folder.glob("*.json")}
        assert bodies == (set() if kind is ForgeKind.FORGEJO else set(names(kind)))


@dataclass(frozen=True)
class Read:
    """What a webhook has to be read as: a move of a ref, something of a pull request, a command, or nothing."""

    ref: str = ""
    deleted: bool = False
    action: PullAction | None = None
    number: int = 7
    command: Command | None = None
    ignored: str = ""


TOPIC, TAG = "refs/heads/topic", "refs/tags/v1.0"
GITHUB = {
    "ping": Read(ignored="the webhook works"),
    "push": Read("refs/heads/main"),
    "push-branch": Read(TOPIC),
    "push-deleted": Read(TOPIC, deleted=True),
    "push-tag": Read(TAG),
    "pull_request-opened": Read(action=PullAction.OPENED, number=6),
    "pull_request-fork-opened": Read(action=PullAction.OPENED),
    "pull_request-fork-synchronize": Read(action=PullAction.NEW_HEAD),
    "pull_request-fork-labeled": Read(action=PullAction.LABELLED),
    "pull_request-fork-closed": Read(action=PullAction.CLOSED),
    "pull_request-fork-reopened": Read(action=PullAction.REOPENED),
    "issue_comment-approve": Read(command=Command.APPROVE),
    "issue_comment-rerun": Read(command=Command.RERUN),
    "issue_comment-cancel": Read(command=Command.CANCEL),
    "issue_comment-edited": Read(ignored="this one was changed"),
    "issue_comment-on-issue": Read(ignored="not on a pull request"),
    "release-published": Read(ignored="a release builds nothing"),
}
GITLAB = {
    "push": Read("refs/heads/main"),
    "push-branch": Read(TOPIC),
    "push-deleted": Read(TOPIC, deleted=True),
    "tag_push": Read(TAG),
    "merge_request-open": Read(action=PullAction.OPENED, number=6),
    "merge_request-fork-open": Read(action=PullAction.OPENED),
    "merge_request-fork-new-head": Read(action=PullAction.NEW_HEAD),
    "merge_request-fork-labels": Read(action=PullAction.LABELLED),
    "merge_request-fork-title": Read(ignored="update builds nothing"),
    "merge_request-fork-close": Read(action=PullAction.CLOSED),
    "merge_request-fork-reopen": Read(action=PullAction.REOPENED),
    "note-approve": Read(command=Command.APPROVE),
    "note-rerun": Read(command=Command.RERUN),
    "note-cancel": Read(command=Command.CANCEL),
    "note-edited": Read(ignored="this one was changed"),
    "note-on-issue": Read(ignored="not on a merge request"),
    "release": Read(ignored="a release builds nothing"),
}
WANTED = [(ForgeKind.GITHUB, name, read) for name, read in GITHUB.items()]
WANTED += [(ForgeKind.GITLAB, name, read) for name, read in GITLAB.items()]


def test_each_is_looked_at() -> None:
    assert (set(GITHUB), set(GITLAB)) == (set(names(ForgeKind.GITHUB)), set(names(ForgeKind.GITLAB)))


@pytest.mark.parametrize(("kind", "name", "wanted"), WANTED)
def test_documented_webhooks_are_read_as_what_they_are(kind: ForgeKind, name: str, wanted: Read) -> None:
    inbound = forge_of(kind).parse(*lowered(recorded(kind, name)))
    assert inbound.repo is not None
    assert (inbound.repo.full_name, inbound.repo.private) == ("alba/hello", False)
    assert (inbound.ignored == "", wanted.ignored in inbound.ignored) == (wanted.ignored == "", True)
    check_move(inbound, wanted)
    check_pull(inbound, wanted)
    told = (inbound.command.command, inbound.command.author, inbound.command.pull) if inbound.command else None
    assert told == ((wanted.command, "alba", 7) if wanted.command else None)


def check_move(inbound: Inbound, wanted: Read) -> None:
    assert [move.ref for move in inbound.moves] == ([wanted.ref] if wanted.ref else [])
    for move in inbound.moves:
        assert (move.after is None, move.author) == (wanted.deleted, "alba")
        assert move.trigger is (Trigger.TAG if wanted.ref == TAG else Trigger.PUSH)
    if wanted.ref == "refs/heads/main":
        assert (inbound.moves[0].paths, inbound.moves[0].title) == (("README.md",), "docs")


def check_pull(inbound: Inbound, wanted: Read) -> None:
    if wanted.action is None:
        assert inbound.pull is None
        return
    assert inbound.pull is not None
    pull, who = inbound.pull.pull, "eve" if wanted.number == 7 else "alba"
    assert (inbound.pull.action, inbound.pull.sender, pull.author) == (wanted.action, who, who)
    assert (pull.number, pull.from_fork, pull.branch) == (wanted.number, wanted.number == 7, "feature")
    assert pull.label == ("eve/hello:feature" if pull.from_fork else "feature")
    assert pull.open == (wanted.action is not PullAction.CLOSED)


@pytest.mark.parametrize(("kind", "tag"), [(ForgeKind.GITHUB, "push-tag"), (ForgeKind.GITLAB, "tag_push")])
def test_a_tag_of_its_own_is_built_as_its_commit(kind: ForgeKind, tag: str) -> None:
    forge = forge_of(kind)
    (branch,) = forge.parse(*lowered(recorded(kind, "push-branch"))).moves
    (move,) = forge.parse(*lowered(recorded(kind, tag))).moves
    assert move.after == branch.after


@pytest.mark.parametrize(
    ("kind", "approval", "opened"),
    [
        (ForgeKind.GITHUB, "issue_comment-approve", "pull_request-fork-opened"),
        (ForgeKind.GITLAB, "note-approve", "merge_request-fork-open"),
    ],
)
def test_an_approval_is_of_the_head_it_names(kind: ForgeKind, approval: str, opened: str) -> None:
    forge = forge_of(kind)
    command, pull = (forge.parse(*lowered(recorded(kind, name))) for name in (approval, opened))
    assert command.command is not None
    assert pull.pull is not None
    assert command.command.commit == pull.pull.pull.commit
