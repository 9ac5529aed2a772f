"""What every step of a Job shares: the order, a directory of its own, the log and the child processes."""

import os
from typing import NamedTuple

from albatros.runner.children import Children
from albatros.runner.logstream import LogStream
from albatros.runner.order import Order
from albatros.runner.protocol import Server

FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin"


class Work(NamedTuple):
    """One Attempt under way. `nix_remote` is the Nix store to use, as NIX_REMOTE takes it."""

    order: Order
    directory: str
    log: LogStream
    children: Children
    server: Server
    nix_remote: str

    def path(self, *names: str) -> str:
        """A path in the Attempt's own directory."""
        return os.path.join(self.directory, *names)

    def write(self, name: str, text: str, mode: int = 0o600) -> str:
        """Write a small file that nobody else can read; its path."""
        path = self.path(name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def folder(self, name: str) -> str:
        """A directory inside the Attempt's own; its path."""
        path = self.path(name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def environment(self) -> dict[str, str]:
        """The least environment that git and Nix need; nothing of the runner's own reaches them."""
        kept = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
        environment = {key: os.environ[key] for key in kept if key in os.environ}
        # What started us may know nothing of Nix, such as a Nomad agent out of systemd.
        environment["PATH"] = f"{environment.get('PATH', '')}:{FALLBACK_PATH}".strip(":")
        environment.setdefault("HOME", self.directory)
        # Nix ends with "cannot figure out user name" for a user id without an entry in the user database.
        environment["USER"] = os.environ.get("USER") or "albatros"
        environment["TMPDIR"] = self.folder("tmp")
        return environment
