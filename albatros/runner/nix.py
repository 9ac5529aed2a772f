"""Nix under our settings: which store, which sandbox, and proof that the sandbox is in force.

Settings and access tokens go to Nix in a file that only this user reads (NIX_USER_CONF_FILES), never in arguments.
"""

import json
import os
import re
from typing import NamedTuple, cast

from albatros.runner.children import Task
from albatros.runner.failure import JobFailedError, Reason, shorten
from albatros.runner.nixlog import ANSI, NixLog
from albatros.runner.work import Work

DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket"
STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+\-._?=]+")
PROBE_SCRIPT = """
test "$NIX_BUILD_TOP" = /build || { echo "NIX_BUILD_TOP is $NIX_BUILD_TOP"; exit 1; }
while read -r line; do
  case $line in *"Nix build user"*) echo contained > "$out"; exit 0;; esac
done < /etc/passwd
echo "/etc/passwd is the host's"; exit 1
"""


def choose_store(wanted: str, home: str) -> str:
    """The store to use: what the executor says, else the daemon, else /nix when it is ours, else one of our own."""
    if wanted:
        return wanted
    if os.path.exists(DAEMON_SOCKET):
        return "daemon"
    return "local" if os.access("/nix/var/nix/db", os.W_OK) else f"local?root={home}/nix-root"


def is_daemon(remote: str) -> bool:
    """Whether builds are done by another process, which obeys settings of its own."""
    return remote == "daemon" or remote.startswith(("unix:", "ssh"))


def settings(work: Work) -> str:
    """The text of nix.conf for this order."""
    nix, repo_tokens = work.order.nix, work.order.access_tokens
    values: dict[str, str] = {
        "experimental-features": "nix-command flakes",
        "accept-flake-config": "false",
        "allow-import-from-derivation": _flag(nix.import_from_derivation),
        "access-tokens": " ".join(f"{host}={token}" for host, token in sorted(repo_tokens.items())),
        "allowed-uris": "",
        "pure-eval": "true",
        "flake-registry": "",
        "eval-cache": "false",
        "warn-dirty": "false",
        "substituters": " ".join(nix.substituters),
        "trusted-public-keys": " ".join(nix.trusted_public_keys),
        "fallback": "true",
        "keep-going": "false",
        "max-jobs": "auto",
        "cores": "0",
    }
    if not is_daemon(work.nix_remote):
        values |= {
            "sandbox": _flag(nix.sandbox),
            "sandbox-fallback": "false",
            "sandbox-paths": " ".join(nix.sandbox_paths),
            # Added to what this machine builds by itself, such as i686-linux on x86_64-linux.
            "extra-extra-platforms": " ".join(nix.extra_systems),
            "build-users-group": "",
            # Nobody else looks after this store: Nix takes the garbage away itself when the disk gets full.
            "min-free": str(nix.min_free),
            "max-free": str(nix.max_free),
        }
    for key, value in values.items():
        if any(character in value for character in "\n\r#"):
            text = f"The Nix setting {key} of the order has a line break or a '#' in it; correct the server's settings."
            raise JobFailedError(Reason.DRIVER, text)
    return "".join(f"{key} = {value}\n" for key, value in values.items())


class NixCall(NamedTuple):
    """A command of Nix; `memory_bytes` bounds its address space, 0 does not; `stdin` is a file."""

    arguments: list[str]
    program: str = "nix"
    stdout_limit: int = 1 << 20
    memory_bytes: int = 0
    stdin: str = os.devnull


class Nix:
    """The `nix` command with the order's settings and the clone's git environment."""

    def __init__(self, work: Work, git_environment: dict[str, str]) -> None:
        self._work = work
        self.environment = {
            **work.environment(),
            **{key: value for key, value in git_environment.items() if key.startswith("GIT_")},
            "NIX_REMOTE": work.nix_remote,
            "NIX_USER_CONF_FILES": work.write("nix.conf", settings(work)),
            # A cache of its own: what one repo's tokens fetched is not served to another repo by name.
            "XDG_CACHE_HOME": work.folder("cache"),
        }
        _, _, parameters = work.nix_remote.partition("?root=")
        self.root = parameters.partition("&")[0].rstrip("/")
        """Where the store's files really are: this prefix, then /nix/store."""

    def run(self, call: NixCall, log: NixLog) -> tuple[int, str]:
        """Run a Nix command; its exit status and standard output."""
        argv = [call.program, *call.arguments]
        limits = (call.stdout_limit, call.memory_bytes, call.stdin)
        done = self._work.children.run(Task(argv, self.environment, self._work.directory, log.take, *limits))
        return done.status, done.stdout.decode("utf-8", "replace")

    def must(self, arguments: list[str]) -> str:
        """Run a Nix command that has to succeed; its standard output. Raises JobFailedError."""
        log = NixLog()
        status, output = self.run(NixCall(arguments, stdout_limit=64 << 20), log)
        if status != 0:
            raise failure(f"nix {arguments[0]} failed", log.error_text(), Reason.DRIVER)
        return output

    def version(self) -> str:
        """Nix's version, such as `2.8.0`."""
        return self.must(["--version"]).strip().rpartition(" ")[2]

    def store_words(self) -> str:
        """Which kind of store is used, for a log that strangers may read: no path of this machine."""
        if is_daemon(self._work.nix_remote):
            return "store of the nix-daemon"
        return "store of the runner's own" if self.root else "store of this machine"

    def physical(self, store_path: str) -> str:
        """Where a store path lies on this machine."""
        return self.root + store_path

    def verify_sandbox(self) -> None:
        """Make sure that builds are contained as the order says. Raises JobFailedError (driver) when they are not."""
        if not self._work.order.nix.sandbox:
            self._work.log.line("warning: Nix's sandbox is off, as the server's operator configured it")
        elif is_daemon(self._work.nix_remote):
            # A daemon ignores what an untrusted user asks for: only a build shows what it does.
            self._probe()
        else:
            self._compare_settings()

    def _compare_settings(self) -> None:
        log = NixLog()
        status, output = self.run(NixCall(["show-config", "--json"]), log)
        if status != 0:
            output = self.must(["config", "show", "--json"])
        for key, wanted in (("sandbox", True), ("sandbox-fallback", False)):
            value = _setting(output, key)
            if value is not wanted and value != _flag(wanted):
                text = f"Nix says {key} = {value}, and it has to be {_flag(wanted)}; look at this machine's nix.conf."
                raise JobFailedError(Reason.DRIVER, text)

    def _probe(self) -> None:
        system = f"{os.uname().machine}-linux"
        # The attempt's id makes the derivation new, so that it is built now and not taken from an earlier answer.
        arguments = f'name = "albatros-probe-{self._work.order.attempt}"; system = "{system}"; builder = "/bin/sh";'
        # JSON's escapes are Nix's too, and the script has no `${` in it.
        expression = f'derivation {{ {arguments} args = [ "-c" {json.dumps(PROBE_SCRIPT)} ]; }}'
        log = NixLog()
        flags = ["--no-link", "--log-format", "internal-json", "-v"]
        status, _ = self.run(NixCall(["build", *flags, "--expr", expression]), log)
        # In a sandbox without /bin/sh the probe cannot even start: that is containment too.
        no_shell = os.path.exists("/bin/sh") and "No such file or directory" in log.error_text() + "".join(
            log.last_lines
        )
        if status != 0 and not no_shell:
            said = shorten(" ".join(log.last_lines) or log.error_text(), 500)
            text = f"The nix-daemon does not build in a sandbox ({said}); set `sandbox = true` in its nix.conf."
            raise JobFailedError(Reason.DRIVER, text)


def failure(what: str, errors: str, otherwise: Reason) -> JobFailedError:
    """A failed Nix command as a JobFailedError, with the reason that Nix's own words give."""
    text = ANSI.sub("", errors).strip()
    reason = otherwise
    if "No space left on device" in text or "database or disk is full" in text:
        reason = Reason.DISK_FULL
    elif re.search(r"is required to build .* but I am a|required system or feature not available", text, re.DOTALL):
        reason = Reason.NO_CAPACITY
    elif re.search(r"out of memory|bad_alloc|Cannot allocate memory|failed due to signal 9", text, re.IGNORECASE):
        reason = Reason.OOM
    return JobFailedError(reason, f"{what}: {text or 'Nix said nothing'}")


def _setting(document: str, key: str) -> object:
    try:
        value = cast("dict[str, dict[str, object]]", json.loads(document))[key]["value"]
    except (ValueError, KeyError, TypeError) as error:
        text = f"Nix's settings cannot be read ({error!r}), so nothing says that the sandbox is in force."
        raise JobFailedError(Reason.DRIVER, text) from error
    return value


def _flag(value: bool) -> str:
    return "true" if value else "false"
