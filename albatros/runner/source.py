"""Clones exactly one commit, or the merge of two, with the credential of the order and nothing more.

There is no work tree unless submodules are asked for: Nix reads the commit out of git, so no symbolic link of the repo
is ever followed, no hook and no filter of the repo runs. The credential lies in a file that only git's helper reads.
"""

import os
import shlex
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from albatros.runner.children import Done, Task
from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.merge import merge
from albatros.runner.order import RepoOrder
from albatros.runner.work import Work

CLONES = "clones"
CREDENTIAL = "credential-"
"""How the names of files with credentials begin."""
SCHEMES = ("https", "http", "ssh", "file")
GONE = (
    "not our ref",
    "couldn't find remote ref",
    "unadvertised object",
    "reference is not a tree",
    "bad object",
    "not allow",
)


class Git:
    """git in the clone's directory, deaf to every configuration but ours."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._repo = work.order.repo
        self.commit = self._repo.commit
        """What is built: the order's commit, or its merge once that is made."""
        self.path = work.folder(f"{CLONES}/host/owner/source")
        self._errors: list[str] = []
        scheme = urlsplit(self._repo.clone_url).scheme
        if scheme not in SCHEMES:
            raise JobFailedError(
                Reason.DRIVER, f"The clone URL's scheme {scheme!r} is not one of {', '.join(SCHEMES)}."
            )
        _checked(self._repo.commit)
        self.environment = {
            **work.environment(),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": work.write("gitconfig", _configuration(work, self.path)),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(sorted({scheme, "https"})),
            "GIT_LFS_SKIP_SMUDGE": "1",
        }

    def run(self, *arguments: str, limit: int = 1 << 20) -> Done:
        """Run one git command; its lines on stderr are kept for `problem`."""
        self._errors.clear()
        argv = ["git", *arguments]
        return self._work.children.run(Task(argv, self.environment, self.path, self._errors.append, limit))

    def time_of(self, commit: str) -> int:
        """When a commit was made, as its committer said: Unix seconds."""
        return int(self.must("log", "-1", "--format=%ct", commit))

    def must(self, *arguments: str, limit: int = 1 << 20) -> bytes:
        """Run one git command that has to succeed; its output. Raises JobFailedError (driver)."""
        done = self.run(*arguments, limit=limit)
        if done.status != 0:
            raise self.problem(f"git {arguments[0]} failed")
        return done.stdout

    def settings(self, name: str, limit: int) -> str | None:
        """The text of the repo's settings file in the commit whose settings hold, None without one.

        That is the order's own commit, or for a stranger's the base of the pull request. Raises JobFailedError.
        """
        commit = self._repo.config_commit
        if commit == "":
            return None
        there = {self._repo.commit, self._repo.merge.commit if self._repo.merge is not None else None}
        if commit is not None and commit not in there:
            _fetch(self, self._repo._replace(ref="HEAD"), _checked(commit))
        return self.file(name, limit, commit)

    def file(self, name: str, limit: int, commit: str | None = None) -> str | None:
        """The text of a plain file at the root of a commit, the order's own if none is named; None without one.

        Raises JobFailedError (evaluation_failed) for a link, a directory, more than `limit` bytes, or not UTF-8.
        """
        commit = commit or self.commit
        listing = self.must("ls-tree", "-z", "--long", commit, "--", name).decode("utf-8", "replace")
        if not listing:
            return None
        mode, kind, _, size = listing.split("\t")[0].split()
        about = f"{name} of {self._repo.full_name}"
        if kind != "blob" or mode == "120000":
            text = f"{about} has to be a plain file, and it is a link or a directory."
            raise JobFailedError(Reason.EVALUATION_FAILED, text)
        if int(size) > limit:
            raise JobFailedError(Reason.EVALUATION_FAILED, f"{about} has {size} bytes; at most {limit} are read.")
        data = self.must("cat-file", "blob", f"{commit}:{name}", limit=limit)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JobFailedError(Reason.EVALUATION_FAILED, f"{about} is not UTF-8: {error}.") from error

    def is_program(self, name: str) -> bool:
        """Whether the order's commit has a plain file at its root that may be executed."""
        listing = self.must("ls-tree", "-z", self.commit, "--", name).decode("utf-8", "replace")
        return listing.startswith("100755 blob ")

    def problem(self, what: str) -> JobFailedError:
        """The last command's failure, in git's own words."""
        text = "\n".join(self._errors[-12:])
        reason = Reason.DISK_FULL if "No space left on device" in text else Reason.DRIVER
        return JobFailedError(reason, f"{self._repo.full_name}: {what}: {text or 'git said nothing'}")

    def says_gone(self) -> bool:
        """Whether the last command failed because the server does not have, or does not give, what was asked for."""
        return any(sign in line for line in self._errors for sign in GONE)


class Clone(NamedTuple):
    """A commit on this machine: `flake` is how Nix names it, `environment` what Nix's own git needs."""

    git: Git
    flake: str
    commit_time: int
    environment: dict[str, str]


def _checked(commit: str) -> str:
    if len(commit) not in {40, 64} or not set(commit) <= set("0123456789abcdef"):
        raise JobFailedError(Reason.DRIVER, f"{commit!r} is not a full commit id.")
    return commit


def fetch(work: Work) -> Clone:
    """Bring the order's commit here. Raises JobFailedError."""
    git, repo = Git(work), work.order.repo
    git.must("init", "--quiet", "--initial-branch=albatros")
    git.must("remote", "add", "origin", repo.clone_url)
    if repo.merge is None:
        _fetch(git, repo, repo.commit)
    else:
        _fetch(git, repo, repo.commit, _checked(repo.merge.commit), whole=True)
        git.commit = merge(git, repo, repo.merge)
        work.log.line(f"merged {repo.commit} into {repo.merge.branch} at {repo.merge.commit}: {git.commit}")
    git.must("update-ref", "refs/heads/albatros", git.commit)
    environment = git.environment
    if repo.lfs:
        _fetch_lfs(git, repo)
    if repo.submodules:
        environment = _fetch_submodules(work, git)
    parameters = f"rev={git.commit}&shallow=1" + ("&submodules=1" if repo.submodules else "")
    return Clone(git, f"git+file://{quote(git.path)}?{parameters}", git.time_of(git.commit), environment)


def _fetch(git: Git, repo: RepoOrder, *commits: str, whole: bool = False) -> None:
    """These commits, and if `whole` all that they come from.

    From a server that gives no commit by its id, everything below the order's ref, or below every branch.
    """
    base = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
    if git.run(*base, *(() if whole else ("--depth=1",)), "origin", *commits).status == 0:
        return
    if not git.says_gone():
        raise git.problem("the commit could not be fetched")
    missing = list(commits)
    for refspec in (f"+{repo.ref}:refs/albatros/ref", "+refs/heads/*:refs/albatros/heads/*"):
        git.run(*base, "origin", refspec)
        missing = [one for one in missing if git.run("cat-file", "-e", f"{one}^{{commit}}").status != 0]
        if not missing:
            return
    text = f"Commit {missing[0]} is no longer in {repo.full_name}: it was probably replaced by a forced push."
    raise JobFailedError(Reason.EVALUATION_FAILED, text)


def _fetch_lfs(git: Git, repo: RepoOrder) -> None:
    if git.run("lfs", "version").status != 0:
        text = (
            f"{repo.full_name} asks for Git LFS, and git-lfs is not on the runner's PATH; install it on this machine."
        )
        raise JobFailedError(Reason.DRIVER, text)
    if git.run("lfs", "fetch", "origin", "refs/heads/albatros").status != 0:
        raise git.problem("the LFS objects could not be fetched")
    # Nix reads the commit with `git archive`, which applies this filter to the objects that were just fetched.
    git.environment["GIT_LFS_SKIP_SMUDGE"] = "0"


def _fetch_submodules(work: Work, git: Git) -> dict[str, str]:
    """Check out with submodules; the environment in which Nix's own clone finds them without the network."""
    git.must("checkout", "--quiet", "--force", "albatros")
    git.must("submodule", "--quiet", "update", "--init", "--recursive")
    raw_url = 'git config --file "$toplevel/.gitmodules" "submodule.$name.url"'
    listing = git.must(
        "submodule", "--quiet", "foreach", "--recursive", f'printf "%s\\0" "$toplevel" "$PWD" "$({raw_url})"'
    )
    parts = listing.decode("utf-8", "surrogateescape").split("\0")[:-1]
    # Nix clones our clone, so it resolves relative URLs against the clone's path; git rewrites no plain paths.
    seen_by_nix = {git.path: git.path}
    text = _configuration(work, git.path)
    for parent, path, url in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        seen = seen_by_nix[path] = resolve_url(seen_by_nix.get(parent, git.path), url)
        if not seen.startswith("/"):
            text += f"[url {_quoted(path)}]\n\tinsteadOf = {_quoted(seen)}\n"
        elif os.path.normpath(seen).startswith(work.path(CLONES) + "/") and not os.path.lexists(seen):
            os.makedirs(os.path.dirname(seen), mode=0o700, exist_ok=True)
            os.symlink(path, seen)
    config = work.write("gitconfig-nix", text)
    return {**git.environment, "GIT_CONFIG_GLOBAL": config, "GIT_ALLOW_PROTOCOL": "file:https"}


def resolve_url(parent: str, url: str) -> str:
    """A submodule's URL as git resolves it: one that begins with ./ or ../ is relative to its parent's."""
    if not url.startswith(("./", "../")):
        return url
    base, rest = parent.rstrip("/"), url
    while rest.startswith(("./", "../")):
        if rest.startswith("../"):
            base = base.rpartition("/")[0]
        rest = rest.partition("/")[2]
    return f"{base}/{rest}".rstrip("/")


def _configuration(work: Work, path: str) -> str:
    repo = work.order.repo
    safe = [path, os.path.join(path, ".git")]
    parts = urlsplit(repo.clone_url)
    if parts.scheme == "file":
        # git refuses to read a repository that belongs to another user; this one is named by the server.
        origin = os.path.realpath(parts.path)
        safe += [parts.path, parts.path + "/.git", origin, origin + "/.git"]
    lines = ["[core]", "\thooksPath = /dev/null", '[protocol "ext"]', "\tallow = never", "[gc]", "\tauto = 0"]
    lines += ["[maintenance]", "\tauto = false", "[advice]", "\tdetachedHead = false", "[safe]"]
    lines += [f"\tdirectory = {_quoted(item)}" for item in safe]
    lines += ["[http]", "\tlowSpeedLimit = 1000", "\tlowSpeedTime = 60"]
    clone_host = parts.netloc.rpartition("@")[2]
    if repo.password is not None and parts.scheme in {"http", "https"}:
        # Named by host: neither a redirect nor a submodule elsewhere is given the credential. Named by path as well, no
        # submodule and no flake input of the same host is either; git-lfs tells the path only where it is asked to.
        place = f"{parts.scheme}://{clone_host}{parts.path if repo.repo_alone else ''}"
        lines += ["[credential]", f"\tuseHttpPath = {str(repo.repo_alone).lower()}"]
        lines += _credential(work, place, repo.username or "git", repo.password)
    for host, token in sorted(work.order.access_tokens.items()):
        if host != clone_host:
            # Nix's own name for the kind of token, which GitLab's have, is no part of it.
            lines += _credential(work, f"https://{host}", "oauth2", token.removeprefix("PAT:").removeprefix("OAuth2:"))
    if repo.lfs:
        lines += [
            '[filter "lfs"]',
            "\tsmudge = git-lfs smudge -- %f",
            "\tclean = git-lfs clean -- %f",
            "\trequired = true",
        ]
    return "\n".join(lines) + "\n"


def _credential(work: Work, url: str, username: str, password: str) -> list[str]:
    """Have git take a password out of a file that nobody else can read, for this URL's host alone."""
    name = f"{CREDENTIAL}{quote(url, '')}"
    secret = work.write(name, f"username={username}\npassword={password}\n")
    helper = f'!f() {{ test "$1" = get && cat {shlex.quote(secret)}; }}; f'
    return [f"[credential {_quoted(url)}]", f"\thelper = {_quoted(helper)}"]


def _quoted(text: str) -> str:
    """A value, or a section's name, as git's configuration writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
