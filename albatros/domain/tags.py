"""Default tags of an image: the commit, the branch's slug, a semver tag's version, `latest` of the default branch.

A branch can never take a name that a release, a commit or `latest` uses; a git tag that is no version has none but the
commit's.
"""

from __future__ import annotations

import re
from enum import StrEnum

from albatros.domain.states import Trigger

MAX_TAG_LENGTH = 128
_SEMVER = re.compile(
    r"v?(?P<version>(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?)(?P<build>\+[0-9A-Za-z.-]+)?", re.ASCII
)
_RESERVED = re.compile(r"latest|[0-9a-f]{40}|[0-9a-f]{64}|sha256-.*|v?\d+\.\d+\.\d+.*", re.ASCII)


class TagKind(StrEnum):
    """The kinds of default tag; `.albatros.toml` may narrow an image to some of them."""

    COMMIT = "commit"
    BRANCH = "branch"
    VERSION = "version"
    LATEST = "latest"


def slug(text: str) -> str:
    """`text` as a legal tag: other characters become `-`, at most 128 characters."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip(".-")
    return cleaned[:MAX_TAG_LENGTH].rstrip("-") or "unnamed"


def default_tags(ref: str, commit: str, default_branch: str, trigger: Trigger) -> dict[str, TagKind]:
    """The tags that a Build of `ref` at `commit` may move, each with its kind; none for what is no branch or tag."""
    if trigger is Trigger.PULL_REQUEST or not ref.startswith(("refs/heads/", "refs/tags/")):
        return {}
    tags = {commit: TagKind.COMMIT}
    if ref.startswith("refs/tags/"):
        version = _version(ref.removeprefix("refs/tags/"))
        if version is not None:
            tags[version] = TagKind.VERSION
    elif ref.startswith("refs/heads/"):
        branch = ref.removeprefix("refs/heads/")
        tags[_branch_tag(branch)] = TagKind.BRANCH
        if branch == default_branch:
            tags["latest"] = TagKind.LATEST
    return tags


def why_not(tag: str, ref: str, commit: str, default_branch: str, trigger: Trigger) -> str:
    """Why a script of this Build may not move a tag of its choice; empty when it may, as far as the name says.

    Its default tags, variants of its own version and what no release, commit or `latest` uses are free.
    """
    if tag in default_tags(ref, commit, default_branch, trigger):
        return ""
    own = _version(ref.removeprefix("refs/tags/")) if ref.startswith("refs/tags/") else None
    given = tag.removeprefix("v")
    if own is not None and (given == own or given.startswith(f"{own}-")):
        return ""
    if _RESERVED.fullmatch(tag):
        return f"the tag {tag} is kept for releases, commits and the default branch, and {ref} is none of its own"
    return ""


def branch_tag(ref: str) -> str | None:
    """The tag that a branch's name gives; None for another ref."""
    return _branch_tag(ref.removeprefix("refs/heads/")) if ref.startswith("refs/heads/") else None


def _version(name: str) -> str | None:
    match = _SEMVER.fullmatch(name)
    if match is None:
        return None
    # "+" is illegal in a registry's tag (distribution spec, "Pulling manifests"), so build metadata follows a "-".
    return slug(match["version"] + (match["build"] or "").replace("+", "-"))


def _branch_tag(name: str) -> str:
    tag = slug(name)
    return slug(f"ref-{tag}") if _RESERVED.fullmatch(tag) else tag
