"""Bare repositories under one directory, whose post-receive hook calls the webhook; statuses are git notes.

A repo is named by the last two parts of its path: OWNER/NAME.git below the directory, or NAME.git in it, which
then is the owner. Nothing outside the directory is ever opened, whatever a name or a symbolic link says. A repository
whose directory others cannot read is private.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

from albatros.domain.inbound import Head, HeadMoved, Inbound, Pull, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, check_full_name, is_commit, is_ref, one_line
from albatros.domain.rules import asks_to_skip, bounded_paths
from albatros.errors import BadInputError, ConfigError, ForgeError, NotFoundError
from albatros.forges import payload
from albatros.forges.base import CloneSource, CommitStatus, Permission, status_word
from albatros.forges.gitcmd import run_git, try_git
from albatros.forges.notes import write_line
from albatros.log import get_logger
from albatros.settings import ForgeSettings

_log = get_logger(__name__)
MAX_REFS = 100
"""Refs in one webhook; the hook sends more in several."""
MAX_REPOS = 10_000
MAX_HEADS = 20_000
_SUFFIX = ".git"


class GitForge:
    """Bare repositories on this machine."""

    reads_disk = True

    def __init__(self, settings: ForgeSettings) -> None:
        self.name = settings.name
        self._secret = settings.webhook_secret.get_secret_value()
        self._root = _root_of(settings)

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        signature = headers.get("x-albatros-signature", "")
        payload.check_signature(self._secret, signature.removeprefix("sha256="), body, "X-Albatros-Signature")

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        delivery = payload.required_header(headers, "X-Albatros-Delivery", payload.MAX_ID)
        event = payload.required_header(headers, "X-Albatros-Event", payload.MAX_EVENT)
        data = payload.read_object(body)
        owner, name = check_full_name(payload.required_text(data, "repo"))
        try:
            repo = self.describe(owner, name)
        except NotFoundError as error:
            raise BadInputError(error.detail) from None
        if event != "push":
            return Inbound(delivery, event, repo, ignored=f"a {event} event builds nothing")
        listed = data.get("refs")
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_REFS:
            raise BadInputError(f"the field 'refs' is no list of 1 to {MAX_REFS} refs")
        items = [payload.as_object(item) for item in listed]
        refs = [(payload.required_text(item, "ref"), item) for item in items]
        moves = tuple(self._read_move(repo, ref, item) for ref, item in refs if _is_head(ref))
        ignored = "" if moves else f"{one_line(refs[0][0], 80)} is neither a branch nor a tag"
        return Inbound(delivery, event, repo, moves, ignored)

    def describe(self, owner: str, name: str) -> RepoInfo:
        path = self.directory(owner, name)
        target = try_git(path, "symbolic-ref", "--quiet", "HEAD").stdout.decode("utf-8", "replace").strip()
        branch = target.removeprefix(BRANCH_PREFIX) if is_ref(target) else "main"
        return RepoInfo(owner, name, not path.stat().st_mode & stat.S_IROTH, branch)

    def repos(self) -> Iterable[RepoInfo]:
        for number, (owner, name) in enumerate(self._list()):
            if number >= MAX_REPOS:
                raise ForgeError(f"{self._root} holds more than {MAX_REPOS} repositories; split it into several forges")
            try:
                yield self.describe(owner, name)
            except (NotFoundError, BadInputError) as error:
                _log.debug("not a repo", path=f"{owner}/{name}", why=error.detail)

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        form = "--format=%(refname)%00%(objecttype)%00%(objectname)%00%(*objecttype)%00%(*objectname)"
        listed = run_git(
            self.directory(owner, name), "for-each-ref", f"--count={MAX_HEADS + 1}", form, BRANCH_PREFIX, TAG_PREFIX
        )
        found = {}
        lines = listed.decode("utf-8", "surrogateescape").splitlines()
        if len(lines) > MAX_HEADS:
            raise ForgeError(f"{owner}/{name} has more than {MAX_HEADS} branches and tags; delete some")
        for line in lines:
            ref, kind, commit, peeled_kind, peeled = line.split("\0")
            if is_ref(ref) and "commit" in {kind, peeled_kind}:
                found[ref] = commit if kind == "commit" else peeled
        return found

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        return _read_commit(self.directory(owner, name), ref) if is_ref(ref) else None

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        del credential  # none is needed on this machine
        path = self.directory(owner, name)
        if os.geteuid() == 0:
            _check_readable(path)
        return CloneSource("file://" + quote(str(path)))

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        fields = (status_word(status.state), status.description, status.target_url)
        write_line(self.directory(owner, name), status.commit, status.context, fields)

    def permission(
        self,
        owner: str,  # noqa: ARG002 - the protocol's
        name: str,  # noqa: ARG002 - the protocol's
        login: str,  # noqa: ARG002 - the protocol's
        subject: str = "",  # noqa: ARG002 - the protocol's
    ) -> Permission:
        """NONE: a bare repository knows users of its machine, and Albatros does not know which of them a login is."""
        return Permission.NONE

    def pull(self, owner: str, name: str, number: int) -> Pull | None:  # noqa: ARG002 - the protocol's
        return None

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:  # noqa: ARG002 - the protocol's
        return ()

    def _read_move(self, repo: RepoInfo, ref: str, item: Mapping[str, object]) -> HeadMoved:
        before, after = payload.commit_or_none(item, "before"), payload.commit_or_none(item, "after")
        if after is None:
            return payload.moved(ref, before, None)
        path = self.directory(repo.owner, repo.name)
        head = _read_commit(path, after)
        if head is None:
            raise BadInputError(f"{repo.full_name} has no commit {after}")
        move = payload.moved(ref, before, head.commit, head.author, head.title)
        return replace(move, skip=head.skip, paths=_changed_paths(path, before, head.commit) if before else None)

    def directory(self, owner: str, name: str) -> Path:
        """Where a bare repository lies. Raises NotFoundError."""
        check_full_name(f"{owner}/{name}")
        folders = [self._root / owner, *([self._root] if owner == self._root.name else [])]
        for path in (folder / f"{name}{suffix}" for folder in folders for suffix in (_SUFFIX, "")):
            if self._is_inside(path) and _is_bare(path):
                return path.resolve()
        raise NotFoundError(
            f"there is no bare repository {owner}/{name}.git in {self._root}, the forge {self.name}'s url"
        )

    def _is_inside(self, path: Path) -> bool:
        try:
            return path.resolve(strict=True).is_relative_to(self._root.resolve(strict=True))
        except (OSError, RuntimeError):
            return False

    def _list(self) -> Iterator[tuple[str, str]]:
        try:
            for entry in sorted(self._root.iterdir()):
                if _is_bare(entry):
                    yield self._root.name, entry.name.removesuffix(_SUFFIX)
                elif entry.is_dir() and os.access(entry, os.R_OK | os.X_OK):
                    yield from ((entry.name, path.name.removesuffix(_SUFFIX)) for path in sorted(entry.iterdir()))
        except OSError as error:
            raise ForgeError(f"{error.filename} cannot be listed: {error.strerror}; check forges.url") from error


def _root_of(settings: ForgeSettings) -> Path:
    url = settings.url
    path = Path(unquote(url.removeprefix("file://"))) if url.startswith("file://") else Path(url)
    if not path.is_absolute():
        raise ConfigError(f"forges.{settings.name}.url: {url!r} is no absolute path of a directory (/srv/git)")
    return path


def _is_head(ref: str) -> bool:
    return ref.startswith((BRANCH_PREFIX, TAG_PREFIX))


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def _read_commit(path: Path, name: str) -> Head | None:
    """The commit that a ref, tag object or commit id stands for; None when there is none."""
    form = "--format=%H%x00%an%x00%s%x00%B"
    found = try_git(path, "log", "-1", "--no-show-signature", form, "--end-of-options", f"{name}^{{commit}}", "--")
    commit, *texts = found.stdout.decode("utf-8", "replace").split("\0")
    if found.returncode != 0 or not is_commit(commit) or len(texts) != 3:
        return None
    author, title, message = texts
    return Head(commit, one_line(author, payload.TEXT), one_line(title, payload.TEXT), asks_to_skip(message))


def _changed_paths(path: Path, before: str, after: str) -> tuple[str, ...] | None:
    """What is different between two commits; None when one is not there."""
    listed = try_git(path, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "--end-of-options", before, after)
    names = listed.stdout.decode("utf-8", "replace").split("\0")[:-1]
    return bounded_paths(names) if listed.returncode == 0 else None


def _check_readable(path: Path) -> None:
    """Raise ForgeError unless every user may read the repository: the runner is another one."""
    for folder in (path, *path.parents):
        wanted = stat.S_IROTH | stat.S_IXOTH if folder == path else stat.S_IXOTH
        if folder.stat().st_mode & wanted != wanted:
            raise ForgeError(
                f"the runner, which is another user, cannot read {path}, since {folder} is closed to others; "
                f"run: chmod {'-R o+rX' if folder == path else 'o+x'} {folder}"
            )
