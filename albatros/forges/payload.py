"""Reading webhooks: the signature over the raw body, then JSON whose every field may be missing or wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace

from albatros.domain.inbound import HeadMoved, RepoInfo
from albatros.domain.refs import (
    BRANCH_PREFIX,
    TAG_PREFIX,
    check_commit,
    check_full_name,
    check_ref,
    is_commit,
    is_ref,
    one_line,
)
from albatros.domain.rules import asks_to_skip, bounded_paths
from albatros.domain.states import Trigger
from albatros.errors import BadInputError, UnauthorizedError

MAX_ID = 200
MAX_EVENT = 64
TEXT = 200
_SIGNATURE_LENGTH = 64
GITHUB_COMMITS = 2048


def check_signature(secret: str, signature: str, body: bytes, header: str) -> None:
    """Compare HMAC-SHA256 of the raw body with `signature`, hexadecimal, in constant time. Raises UnauthorizedError."""
    if not secret or not signature:
        raise UnauthorizedError(
            f"the webhook is not signed: {header} is missing or empty; set the same secret on both sides"
        )
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), signature.strip().lower().encode("utf-8", "replace")):
        raise UnauthorizedError(f"{header} does not fit the body: check that both sides have the same webhook secret")


def secret_of_repo(secret: str, full_name: str) -> str:
    """What one repo's webhook is signed with: Gitea shows it to the repo's administrators, who sign for no other."""
    return hmac.new(secret.encode(), f"repo:{full_name}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def check_repo_signature(secret: str, signature: str, body: bytes, header: str) -> None:
    """Take a signature with `secret`, or with that of the repo which the body names. Raises UnauthorizedError.

    Of an unsigned body nothing is used but that name, to find the key.
    """
    try:
        check_signature(secret, signature, body, header)
    except UnauthorizedError:
        if len(signature.strip()) != _SIGNATURE_LENGTH:
            raise
        check_signature(secret_of_repo(secret, _named_repo(body)), signature, body, header)


def _named_repo(body: bytes) -> str:
    try:
        found = child(read_object(body), "repository").get("full_name")
    except BadInputError:
        found = None
    return found if isinstance(found, str) else ""


def required_header(headers: Mapping[str, str], name: str, limit: int) -> str:
    """A header of printable ASCII. Raises BadInputError."""
    value = headers.get(name.lower(), "")
    if not value or len(value) > limit or not (value.isascii() and value.isprintable()):
        raise BadInputError(f"the header {name} is missing, longer than {limit} characters or not plain text")
    return value


def read_object(body: bytes) -> Mapping[str, object]:
    """The JSON object that a body is. Raises BadInputError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the body is not JSON: {one_line(str(error), TEXT)}") from None
    if not isinstance(value, dict):
        raise BadInputError("the body is JSON, but no object")
    return value


def as_object(value: object) -> Mapping[str, object]:
    """A JSON object; empty when it is something else."""
    return value if isinstance(value, dict) else {}


def child(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object inside an object; empty when it is missing or something else."""
    return as_object(value.get(key))


def text(value: Mapping[str, object], key: str) -> str:
    """A text for people out of an object, one line of it; empty when it is missing or something else."""
    found = value.get(key)
    return one_line(found, TEXT) if isinstance(found, str) else ""


def required_text(value: Mapping[str, object], key: str) -> str:
    """A string out of an object, unchanged. Raises BadInputError."""
    found = value.get(key)
    if not isinstance(found, str):
        raise BadInputError(f"the field {key!r} is missing or no text")
    return found


def read_repo(value: Mapping[str, object]) -> RepoInfo:
    """A repo as Gitea, Forgejo and GitHub describe it. Raises BadInputError."""
    owner, name = check_full_name(required_text(value, "full_name"))
    private = value.get("private")
    if not isinstance(private, bool):
        raise BadInputError("the field 'private' of the repo is missing or neither true nor false")
    branch = required_text(value, "default_branch")
    if not is_ref(BRANCH_PREFIX + branch):
        raise BadInputError("the repo's default_branch is no name of a branch")
    return RepoInfo(owner, name, private, branch)


def commit_or_none(value: Mapping[str, object], key: str) -> str | None:
    """A full commit id; None for the zero id, which stands for a ref that is not there. Raises BadInputError."""
    found = required_text(value, key)
    if found and not found.strip("0"):
        return None
    return check_commit(found)


def changed_paths(push: Mapping[str, object]) -> tuple[str, ...] | None:
    """What the commits of a push change; None when the forge does not list them all, or dropped others for them."""
    commits = push.get("commits")
    if not isinstance(commits, list) or _count(push, len(commits)) != len(commits):
        return None
    listed = [as_object(commit).get(key) for commit in commits for key in ("added", "removed", "modified")]
    names = [name for part in listed if isinstance(part, list) for name in part]
    return bounded_paths(names) if all(isinstance(name, str) for name in names) else None


def _count(push: Mapping[str, object], listed: int) -> object:
    """How many commits a push has: Gitea and GitLab say it; GitHub lists up to 2048, and says if it was forced."""
    for key in ("total_commits", "total_commits_count"):
        if key in push:
            return push[key]
    return listed if push.get("forced") is False and listed < GITHUB_COMMITS else None


def asks(commit: Mapping[str, object]) -> bool:
    """Whether a commit's message asks for no build."""
    message = commit.get("message")
    return isinstance(message, str) and asks_to_skip(message)


def moved(ref: str, before: str | None, after: str | None, author: str = "", title: str = "") -> HeadMoved:
    """A move of a branch or tag by somebody who may push to it. Raises BadInputError."""
    trigger = Trigger.TAG if ref.startswith(TAG_PREFIX) else Trigger.PUSH
    return HeadMoved(check_ref(ref), before, after, trigger, author, title)


def read_push(data: Mapping[str, object], ref: str, pusher: str) -> HeadMoved:
    """A push as Gitea, Forgejo and GitHub tell it; `pusher` is the field with who did it. Raises BadInputError."""
    before, after = commit_or_none(data, "before"), commit_or_none(data, "after")
    commit = child(data, "head_commit")
    # The push of an annotated tag carries the tag object's id as `after`; what is built is the commit.
    peeled = commit.get("id")
    if after is not None and ref.startswith(TAG_PREFIX) and isinstance(peeled, str) and is_commit(peeled):
        after = peeled
    author = text(child(data, "pusher"), pusher) or text(child(commit, "author"), "name")
    move = moved(ref, before, after, author, text(commit, "message"))
    return replace(move, skip=asks(commit), paths=changed_paths(data) if before else None)
