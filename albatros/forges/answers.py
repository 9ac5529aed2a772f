"""What forges with a REST API answer about a repo and its heads, alike but for the names of fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from albatros.domain.inbound import RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, is_commit, is_ref
from albatros.errors import BadInputError, ForgeError, NotFoundError
from albatros.forges import payload


def described(
    forge: str,
    repo: str,
    found: object | None,
    read: Callable[[Mapping[str, object]], RepoInfo] = payload.read_repo,
) -> RepoInfo:
    """A repo out of a forge's answer, None when there was none. Raises NotFoundError or ForgeError."""
    if found is None:
        raise NotFoundError(f"{forge} has no repo {repo}, or hides it: check forges.token")
    try:
        return read(payload.as_object(found))
    except BadInputError as error:
        raise ForgeError(f"{forge} describes {repo} in a way that cannot be read: {error.detail}") from None


def heads_of(branches: Iterable[Mapping[str, object]], tags: Iterable[Mapping[str, object]]) -> Mapping[str, str]:
    """The commit of each ref; what has no commit, or a name that is no ref's, is left out."""
    found: dict[str, str] = {}
    for prefix, items in ((BRANCH_PREFIX, branches), (TAG_PREFIX, tags)):
        for item in items:
            ref, commit = prefix + str(item.get("name")), commit_of(payload.child(item, "commit"))
            if commit is not None and is_ref(ref):
                found[ref] = commit
    return found


def commit_of(commit: Mapping[str, object]) -> str | None:
    """A commit's own digest, which is its `id` at GitLab, its `sha` at GitHub, and either at Gitea."""
    found = commit.get("id") or commit.get("sha")
    return found if isinstance(found, str) and is_commit(found) else None
