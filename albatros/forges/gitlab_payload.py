"""What GitLab tells of projects, pushes, merge requests and comments, in webhooks and in its API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from albatros.domain.inbound import (
    CommentCommand,
    HeadMoved,
    Inbound,
    Pull,
    PullAction,
    PullEvent,
    RepoInfo,
    read_command,
)
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, check_full_name, is_commit, is_ref, one_line
from albatros.errors import BadInputError
from albatros.forges import payload, pulls

_PUBLIC_LEVEL = 20
_NOT_BUILT = {
    "Release Hook": "a release builds nothing; its tag is built by the push that comes with it",
    "System Hook": "only a project's or a group's webhook is read",
}
_ACTIONS = {
    "open": PullAction.OPENED,
    "reopen": PullAction.REOPENED,
    "close": PullAction.CLOSED,
    "merge": PullAction.CLOSED,
}
_UNCHANGED = "created_at", "updated_at"


def read(delivery: str, event: str, data: Mapping[str, object]) -> Inbound:
    """A verified webhook. Raises BadInputError."""
    if event not in {"Push Hook", "Tag Push Hook", "Merge Request Hook", "Note Hook"}:
        repo = read_project(payload.child(data, "project")) if "project" in data else None
        return Inbound(delivery, event, repo, ignored=_NOT_BUILT.get(event, f"a {event} builds nothing"))
    repo = read_project(payload.child(data, "project"))
    if event == "Merge Request Hook":
        return _read_merge_event(delivery, event, repo, data)
    if event == "Note Hook":
        return _read_note(delivery, event, repo, data)
    ref = payload.required_text(data, "ref")
    if not ref.startswith((BRANCH_PREFIX, TAG_PREFIX)):
        return Inbound(delivery, event, repo, ignored=f"{one_line(ref, 80)} is neither a branch nor a tag")
    return Inbound(delivery, event, repo, (_read_push(data, ref),))


def project_path(owner: str, name: str) -> str:
    """Where a project is below the API."""
    return f"/projects/{quote(f'{owner}/{name}', safe='')}"


def read_project(value: Mapping[str, object]) -> RepoInfo:
    """A project, with `visibility` from the API or `visibility_level` from a webhook. Raises BadInputError."""
    owner, name = check_full_name(payload.required_text(value, "path_with_namespace"), nested=True)
    level, word = value.get("visibility_level"), value.get("visibility")
    if not isinstance(word, str) and (not isinstance(level, int) or isinstance(level, bool)):
        raise BadInputError("the project's visibility is missing")
    private = word != "public" if isinstance(word, str) else level != _PUBLIC_LEVEL
    branch = value.get("default_branch")
    # A project without any commit has none.
    branch = "main" if branch is None else payload.required_text(value, "default_branch")
    if not is_ref(BRANCH_PREFIX + branch):
        raise BadInputError("the project's default_branch is no name of a branch")
    return RepoInfo(owner, name, private, branch)


def _read_push(data: Mapping[str, object], ref: str) -> HeadMoved:
    before, after = payload.commit_or_none(data, "before"), payload.commit_or_none(data, "after")
    # The push of an annotated tag carries the tag object's id as `after`; what is built is the commit.
    peeled = data.get("checkout_sha")
    if after is not None and ref.startswith(TAG_PREFIX) and isinstance(peeled, str) and is_commit(peeled):
        after = peeled
    listed = data.get("commits")
    commits = [payload.as_object(one) for one in listed] if isinstance(listed, list) else []
    newest: Mapping[str, object] = next((one for one in reversed(commits) if one.get("id") == after), {})
    author = payload.text(data, "user_username") or payload.text(payload.child(newest, "author"), "name")
    move = payload.moved(ref, before, after, author, payload.text(newest, "message"))
    return replace(move, skip=payload.asks(newest), paths=payload.changed_paths(data) if before else None)


def _read_merge_event(delivery: str, event: str, repo: RepoInfo, data: Mapping[str, object]) -> Inbound:
    told = payload.child(data, "object_attributes")
    said = payload.text(told, "action")
    action = _ACTIONS.get(said)
    if said == "update":
        # Every edit is an update; a new head is one that tells the old one.
        labels = "labels" in payload.child(data, "changes")
        action = PullAction.NEW_HEAD if told.get("oldrev") else PullAction.LABELLED if labels else None
    if action is None:
        return Inbound(delivery, event, repo, ignored=f"a merge request's {said or 'change'} builds nothing")
    sender = _username(payload.child(data, "user"))
    by_author = told.get("author_id") == payload.child(data, "user").get("id")
    pull = read_merge_request(told, sender if by_author else "")
    return Inbound(delivery, event, repo, pull=PullEvent(action, sender, pull))


def read_merge_request(told: Mapping[str, object], author: str = "") -> Pull:
    """A merge request; a webhook names its author by number only, the API by login. Raises BadInputError."""
    number = pulls.read_number(told, "iid")
    branch = payload.required_text(told, "source_branch")
    base_ref = BRANCH_PREFIX + payload.required_text(told, "target_branch")
    commit = told.get("sha") or payload.child(told, "last_commit").get("id")
    if not isinstance(commit, str) or not is_commit(commit) or not is_ref(base_ref):
        raise BadInputError(f"merge request {number} has no head, or a target that is no branch")
    source, target = told.get("source_project_id"), told.get("target_project_id")
    home = payload.text(payload.child(told, "source"), "path_with_namespace")
    from_fork = not isinstance(source, int) or source != target
    branch = branch if is_ref(BRANCH_PREFIX + branch) else ""
    return Pull(
        number=number,
        ref=f"refs/merge-requests/{number}/head",
        commit=commit,
        branch=branch,
        label=one_line(f"{home}:{branch}" if from_fork and home else branch, payload.TEXT),
        from_fork=from_fork,
        author=author or _username(payload.child(told, "author")),
        title=payload.text(told, "title"),
        base_ref=base_ref,
        open=payload.text(told, "state") == "opened",
    )


def _read_note(delivery: str, event: str, repo: RepoInfo, data: Mapping[str, object]) -> Inbound:
    note, user = payload.child(data, "object_attributes"), payload.child(data, "user")
    if note.get("noteable_type") != "MergeRequest":
        return Inbound(delivery, event, repo, ignored="a comment that is not on a merge request does nothing")
    action = note.get("action")
    # GitLab before 16.11 does not say what happened to the comment.
    created = action == "create" or (action is None and note.get(_UNCHANGED[0]) == note.get(_UNCHANGED[1]))
    if not created or note.get("author_id") != user.get("id"):
        return Inbound(delivery, event, repo, ignored="only a new comment is a command; this one was changed")
    text = note.get("note")
    found = read_command(text) if isinstance(text, str) else None
    if found is None:
        return Inbound(delivery, event, repo, ignored=pulls.NO_COMMAND)
    number = pulls.read_number(payload.child(data, "merge_request"), "iid")
    comment = str(pulls.read_number(note, "id", 1 << 63))
    return Inbound(delivery, event, repo, command=CommentCommand(found[0], comment, _username(user), number, found[1]))


def _username(person: Mapping[str, object]) -> str:
    found = person.get("username")
    return found if isinstance(found, str) and found == one_line(found, payload.TEXT) else ""
