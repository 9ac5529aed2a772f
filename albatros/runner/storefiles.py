"""Reads files of the Nix store, wherever it really lies, and nothing outside of it.

Store paths are names inside the store's root; symbolic links are followed by these names, step by step, so that a link
to /etc/shadow, or one out of a store that lies elsewhere, is refused.
"""

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.nix import STORE_PATH

STORE = "/nix/store"
MOST_LINKS = 40


class StoreFiles:
    """The store whose files lie under `root` + /nix/store."""

    def __init__(self, root: str) -> None:
        self._root = root

    def resolve(self, path: str) -> str:
        """The store's own name of what `path` leads to, all links followed. Raises JobFailedError (build_failed)."""
        done, left, links = "", [part for part in path.split("/") if part not in {"", "."}], 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            done = f"{done}/{part}"
            if done in {"/nix", STORE}:
                continue
            if not _inside(done):
                raise _outside(path, "/".join([done, *left]))
            if os.path.islink(self._root + done):
                links += 1
                target = os.readlink(self._root + done)
                left = [name for name in target.split("/") if name not in {"", "."}] + left
                done = "" if target.startswith("/") else done.rpartition("/")[0]
                if links > MOST_LINKS:
                    raise JobFailedError(Reason.BUILD_FAILED, f"{path} is a symbolic link that leads in a circle.")
        if not _inside(done):
            raise _outside(path, done or "/")
        return done

    def physical(self, path: str) -> str:
        """Where the file that `path` leads to lies on this machine."""
        return self._root + self.resolve(path)

    def lstat(self, path: str) -> os.stat_result:
        """Status of `path` itself, be it a link."""
        return os.lstat(self._physical_parent(path))

    def readlink(self, path: str) -> str:
        """What the link `path` says."""
        return os.readlink(self._physical_parent(path))

    def open(self, path: str) -> BinaryIO:
        """Open the plain file that `path` leads to. Raises JobFailedError when it is none."""
        physical = self.physical(path)
        try:
            descriptor = os.open(physical, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise JobFailedError(Reason.BUILD_FAILED, f"{path} cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise JobFailedError(Reason.BUILD_FAILED, f"{path} is not a plain file.")
        return os.fdopen(descriptor, "rb")

    def walk(self, path: str) -> Iterator[str]:
        """`path` and all that is below it, links not followed; `path` must be a store path or lie in one."""
        if not STORE_PATH.match(path):
            raise JobFailedError(Reason.BUILD_FAILED, f"{path} is not in the Nix store.")
        yield path
        if stat.S_ISDIR(self.lstat(path).st_mode):
            for name in sorted(os.listdir(self._physical_parent(path))):
                yield from self.walk(f"{path}/{name}")

    def _physical_parent(self, path: str) -> str:
        """Where `path` lies, links in its parents followed and itself not."""
        parent, _, name = path.rpartition("/")
        if parent == STORE and STORE_PATH.fullmatch(path):
            return self._root + path
        return f"{self._root}{self.resolve(parent)}/{name}"


def _inside(path: str) -> bool:
    return STORE_PATH.match(path) is not None


def _outside(path: str, target: str) -> JobFailedError:
    text = f"{path} is or holds a symbolic link that leaves the Nix store, to {target}; make the output hold the file."
    return JobFailedError(Reason.BUILD_FAILED, text)
