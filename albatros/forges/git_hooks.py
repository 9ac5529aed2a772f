"""The post-receive hook of bare repositories on this machine, with its two settings in git's own configuration.

The webhook secret lies beside the hook, for those alone who may push. Everything is read and written as the
repository's owner when the server is root, so that no link in it leads anywhere that they could not go themselves.
"""

from __future__ import annotations

import hmac
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from albatros.assets import deploy_dir
from albatros.domain.refs import one_line
from albatros.errors import ForgeError
from albatros.forges.base import Hook, HookState
from albatros.forges.git import GitForge
from albatros.forges.gitcmd import run_git, try_git, try_program
from albatros.settings import ForgeSettings

URL, SECRET_FILE = "albatros.url", "albatros.secretFile"
_MARK = b"Tells Albatros what was pushed to this bare repository."
"""In every version of our hook, and in no other."""
_MAX_FILE = 64 << 10
_WRITE = """\
set -eu; umask 077; mkdir -p -m 755 "${1%/*}"; new=$(mktemp "$1.XXXXXX"); trap 'rm -f "$new"' EXIT
cat > "$new"; chmod "$2" "$new"; mv -f "$new" "$1"
"""
_READ = """\
set -eu; test -f "$1" || exit 0; stat -L -c %a "$1"; head -c "$2" "$1"
"""
_RING = 'cd "$1" && GIT_DIR="$1" exec python3 "$2"'


class GitHooks:
    """The hooks of the repositories of one forge of kind `git`."""

    def __init__(self, settings: ForgeSettings) -> None:
        self._forge = GitForge(settings)
        self._secret = settings.webhook_secret.get_secret_value()

    def look(self, owner: str, name: str, url: str) -> Hook:
        path = self._forge.directory(owner, name)
        program = _read(path, _program(path))[1]
        if _MARK not in program:
            other = "another post-receive hook is there" if program else "there is no post-receive hook"
            return Hook(HookState.MISSING, f"{other} in {path}")
        differences = self._differences(path, program, url)
        if differences:
            return Hook(HookState.DIFFERS, f"the hook {'; '.join(differences)}")
        return Hook(HookState.READY, f"the post-receive hook posts to {url}")

    def ensure(self, owner: str, name: str, url: str) -> Hook:
        path = self._forge.directory(owner, name)
        program = _read(path, _program(path))[1]
        if program and _MARK not in program:
            raise ForgeError(
                f"{_program(path)} is another program: have it run {_source()} with the same standard input, "
                f"and run: {_settings_by_hand(path, url)}"
            )
        differences = self._differences(path, program, url) if program else []
        try:
            _write(path, _program(path), _source().read_bytes(), "755")
            run_git(path, "config", URL, url)
            self._write_secret(path)
        except ForgeError as error:
            by_hand = f"install -m 755 {_source()} {shlex.quote(str(_program(path)))} && {_settings_by_hand(path, url)}"
            raise ForgeError(f"{error.detail}; as the repository's owner, run: {by_hand}") from None
        if not program:
            return Hook(HookState.READY, f"the post-receive hook in {path} was installed")
        if differences:
            return Hook(HookState.READY, f"the post-receive hook was repaired: it {'; it '.join(differences)}")
        return Hook(HookState.READY, "the post-receive hook is as it should be")

    def remove(self, owner: str, name: str, url: str) -> Hook:
        path = self._forge.directory(owner, name)
        if _MARK not in _read(path, _program(path))[1] or _config(path, URL) != url:
            return Hook(HookState.MISSING, f"no post-receive hook in {path} posted to {url}")
        _must(path, ["rm", "-f", str(_program(path)), str(_secret_file(path))], "rm")
        for key in (URL, SECRET_FILE):
            try_git(path, "config", "--unset-all", key)
        return Hook(HookState.MISSING, f"the post-receive hook in {path} was removed")

    def ring(self, owner: str, name: str, url: str) -> bool:
        """Run the hook as the repository's owner, for a push of the default branch that moved nothing."""
        path = self._forge.directory(owner, name)
        if _config(path, URL) != url:
            raise ForgeError(f"the hook in {path} does not post to {url}: run `albatros repo add` for it")
        branch = try_git(path, "symbolic-ref", "--quiet", "HEAD").stdout.decode("utf-8", "replace").strip()
        head = self._forge.head(owner, name, branch)
        if head is None:
            return False
        line = f"{head.commit} {head.commit} {branch}\n"
        # Ours, and not the one in the repository: the server runs no program of a repo.
        done = try_program(path, ["sh", "-c", _RING, "sh", str(path), str(_source())], "the hook", data=line.encode())
        said = one_line(done.stdout.decode("utf-8", "replace"), 300)
        if done.returncode != 0 or "not told" in said:
            raise ForgeError(f"the hook of {owner}/{name}: {said or 'it could not be run'}")
        return True

    def _differences(self, path: Path, program: bytes, url: str) -> list[str]:
        """What keeps our hook from being right, each to be read after `it`."""
        found = []
        if program != _source().read_bytes():
            found.append("is of another version of Albatros")
        if not _mode(path, _program(path)) & stat.S_IXUSR:
            found.append("is not executable")
        if (posts_to := _config(path, URL)) != url:
            found.append(f"posts to {one_line(posts_to, 200) or 'nowhere'}")
        secret_file = Path(_config(path, SECRET_FILE) or _secret_file(path)).expanduser()
        mode, secret = _read(path, secret_file)
        if not hmac.compare_digest(secret.strip(), self._secret.encode()):
            found.append("has another webhook secret")
        elif mode & (stat.S_IROTH | stat.S_IWOTH):
            found.append("has a secret that every user of this machine can read")
        return found

    def _write_secret(self, path: Path) -> None:
        """Keep a file that somebody named and that holds the secret; else write one."""
        named = _config(path, SECRET_FILE)
        if named and named != str(_secret_file(path)):
            mode, secret = _read(path, Path(named).expanduser())
            if hmac.compare_digest(secret.strip(), self._secret.encode()) and not mode & stat.S_IROTH:
                return
        shared = path.stat().st_mode & stat.S_IWGRP
        _write(path, _secret_file(path), self._secret.encode() + b"\n", "640" if shared else "600")
        run_git(path, "config", SECRET_FILE, str(_secret_file(path)))


def _source() -> Path:
    return deploy_dir() / "git" / "post-receive"


def _program(path: Path) -> Path:
    return path / "hooks" / "post-receive"


def _secret_file(path: Path) -> Path:
    return path / "hooks" / "albatros.secret"


def _settings_by_hand(path: Path, url: str) -> str:
    config = f"git -C {shlex.quote(str(path))} config"
    return f"{config} {URL} {url} && {config} {SECRET_FILE} FILE (one that holds the forge's webhook_secret)"


def _config(path: Path, key: str) -> str:
    return try_git(path, "config", "--get", key).stdout.decode("utf-8", "replace").strip()


def _read(path: Path, file: Path) -> tuple[int, bytes]:
    """Mode and bytes of a plain file, as far as the repository's owner may read it; 0 and nothing without one."""
    done = try_program(path, ["sh", "-c", _READ, "sh", str(file), str(_MAX_FILE)], "sh")
    mode, _, content = done.stdout.partition(b"\n")
    return (int(mode, 8), content) if done.returncode == 0 and mode.isdigit() else (0, b"")


def _mode(path: Path, file: Path) -> int:
    return _read(path, file)[0]


def _write(path: Path, file: Path, content: bytes, mode: str) -> None:
    _must(path, ["sh", "-c", _WRITE, "sh", str(file), mode], "writing the hook", content)


def _must(path: Path, argv: Sequence[str], what: str, data: bytes = b"") -> None:
    done = try_program(path, argv, what, data=data)
    if done.returncode != 0:
        said = one_line(done.stderr.decode("utf-8", "replace"), 300)
        raise ForgeError(f"{what} in {path} failed: {said or f'exit code {done.returncode}'}")
