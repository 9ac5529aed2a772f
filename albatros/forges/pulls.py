"""Pull requests and comments on them as Gitea, Forgejo and GitHub describe them, in webhooks and in their API."""

from __future__ import annotations

from collections.abc import Mapping

from albatros.domain.inbound import (
    CommentCommand,
    Head,
    Inbound,
    Pull,
    PullAction,
    PullEvent,
    RepoInfo,
    read_command,
)
from albatros.domain.refs import BRANCH_PREFIX, is_commit, is_ref, one_line
from albatros.errors import BadInputError, ForgeError
from albatros.forges import payload

MAX_NUMBER = 1 << 31
NO_COMMAND = "the comment is no command: /approve FULL_SHA, /rerun or /cancel, alone in its first line"


def read_event(
    delivery: str, event: str, repo: RepoInfo, data: Mapping[str, object], actions: Mapping[str, PullAction]
) -> Inbound:
    """A webhook about a pull request; other actions than `actions` are recorded. Raises BadInputError."""
    said = payload.text(data, "action")
    action = actions.get(said)
    if action is None:
        return Inbound(delivery, event, repo, ignored=f"a pull request that was {said or 'touched'} builds nothing")
    pull = read_pull(payload.child(data, "pull_request"))
    return Inbound(delivery, event, repo, pull=PullEvent(action, login_of(data, "sender"), pull))


def read_comment(delivery: str, event: str, repo: RepoInfo, data: Mapping[str, object], *, on_pull: bool) -> Inbound:
    """A webhook about a comment: a command when it is new, on a pull request, and its first line is one."""
    comment = payload.child(data, "comment")
    author = login_of(comment, "user")
    if not on_pull:
        return Inbound(delivery, event, repo, ignored="a comment that is not on a pull request does nothing")
    if payload.text(data, "action") != "created" or login_of(data, "sender") != author:
        return Inbound(delivery, event, repo, ignored="only a new comment is a command; this one was changed")
    body = comment.get("body")
    found = read_command(body) if isinstance(body, str) else None
    if found is None:
        return Inbound(delivery, event, repo, ignored=NO_COMMAND)
    number = read_number(payload.child(data, "issue"), "number")
    command = CommentCommand(found[0], str(read_number(comment, "id", 1 << 63)), author, number, found[1])
    return Inbound(delivery, event, repo, command=command)


def read_pull(data: Mapping[str, object]) -> Pull:
    """A pull request. Raises BadInputError."""
    number = read_number(data, "number")
    head, base = payload.child(data, "head"), payload.child(data, "base")
    commit = payload.commit_or_none(head, "sha")
    base_ref = BRANCH_PREFIX + payload.required_text(base, "ref")
    if commit is None or not is_ref(base_ref):
        raise BadInputError(f"pull request {number} has no head, or a base that is no branch")
    branch = payload.required_text(head, "ref")
    branch = branch if is_ref(BRANCH_PREFIX + branch) else ""
    ids = [payload.child(end, "repo").get("id") for end in (head, base)]
    from_fork = not isinstance(ids[0], int) or ids[0] != ids[1]
    home = payload.text(payload.child(head, "repo"), "full_name")
    base_commit = base.get("sha")
    return Pull(
        number=number,
        ref=f"refs/pull/{number}/head",
        commit=commit,
        branch=branch,
        label=one_line(f"{home}:{branch}" if from_fork and home else branch, payload.TEXT),
        from_fork=from_fork,
        author=login_of(data, "user"),
        title=payload.text(data, "title"),
        base_ref=base_ref,
        base_commit=base_commit if isinstance(base_commit, str) and is_commit(base_commit) else None,
        open=payload.text(data, "state") == "open",
    )


def answered(forge: str, item: object) -> Pull:
    """A pull request out of a forge's own answer. Raises ForgeError."""
    try:
        return read_pull(payload.as_object(item))
    except BadInputError as error:
        raise ForgeError(f"{forge} describes a pull request in a way that cannot be read: {error.detail}") from None


def head_of(pull: Pull | None) -> Head | None:
    """The head of an open pull request."""
    return Head(pull.commit, pull.author, pull.title) if pull is not None and pull.open else None


def read_number(data: Mapping[str, object], key: str, limit: int = MAX_NUMBER) -> int:
    """A positive whole number below `limit`. Raises BadInputError."""
    found = data.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < limit:
        raise BadInputError(f"the field {key!r} is missing or no positive number")
    return found


def login_of(data: Mapping[str, object], key: str) -> str:
    """The login of a person; empty when it is not there, or longer than one can be."""
    found = payload.child(data, key).get("login")
    return found if isinstance(found, str) and found == one_line(found, payload.TEXT) else ""
