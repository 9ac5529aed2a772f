"""The embedded executor: each Attempt is a process on this machine, in a session of its own.

Runners outlive the server. A record of each one lies in the data directory, so that the next server process finds
those that run still; one that was started and not recorded is found by its environment.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ExecutorError
from albatros.executors import processes
from albatros.executors.base import RunnerEnded, RunnerNews, Slots, StartOrder
from albatros.executors.homes import NAME, Home, choose_home, choose_python
from albatros.executors.isolation import IsolationKind, close_to_others, decide, secrets_of_user
from albatros.executors.processes import Identity
from albatros.log import get_logger
from albatros.settings import ExecutorSettings

log = get_logger(__name__)
DAEMON_SOCKET = Path("/nix/var/nix/daemon-socket/socket")
ATTEMPT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
STDERR_TAIL = 4096
PRIVATE_STORE = "private"
KILL_SECONDS = 5.0
ID_DIGITS = 8
MACHINE_SYSTEMS = {
    "x86_64": ("x86_64-linux", "i686-linux"),
    "aarch64": ("aarch64-linux",),
}
PASSED_ON = ("LANG", "SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin"


@dataclass(slots=True)
class _Runner:
    """A runner that was started; `process` is None when another server process started it."""

    identity: Identity
    process: subprocess.Popen[bytes] | None
    killed_for_memory: int
    stopped: bool = False

    def ended(self) -> bool:
        if self.process is not None:
            return self.process.poll() is not None
        return not processes.is_alive(self.identity)

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.returncode

    def was_out_of_memory(self) -> bool:
        killed = self.exit_code() == -signal.SIGKILL and not self.stopped
        return killed and processes.killed_for_memory() > self.killed_for_memory


class LocalExecutor:
    """Runs Attempts beside the server; see `Executor` for what each call promises. Safe to use from several threads."""

    shared = False

    def __init__(
        self,
        server_id: str,
        settings: ExecutorSettings,
        data: Path,
        zipapp: bytes,
        private: Sequence[Path] = (),
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Decide how to isolate, make the runner's home, and find the runners of an earlier server process.

        `server_id` tells its Attempts from those of other servers.
        `data` must exist; `private` are files elsewhere that a runner must not read, such as the server's config;
        `on_end` is called from a thread of its own when a runner ended, so that nobody has to ask all the time.
        Raises ConfigError or ExecutorError.
        """
        self.name = f"local:{server_id[:ID_DIGITS]}"
        self._private = [path.resolve() for path in private]
        self._settings = settings
        self._data = data.resolve()
        self.isolation = decide(settings.user)
        close_to_others(self._data, frozenset({NAME}))
        self._attempts = self._data / "attempts"
        self._attempts.mkdir(mode=0o700, exist_ok=True)
        self._home: Home = choose_home(self._data, self.isolation)
        self._home.prepare(zipapp)
        self._python = choose_python(self._home)
        self._lock = threading.Lock()
        self._runners: dict[str, _Runner] = {}
        self._lost: list[str] = []
        self._on_end = on_end
        self._adopt()

    @property
    def takes_strangers(self) -> bool:
        """Whether a runner can read neither the server's data nor its keys; strangers are refused where it can."""
        return self.isolation.isolated

    def warnings(self) -> list[str]:
        """What an operator should know of how Jobs run here."""
        found = []
        if not self.takes_strangers:
            found.append(f"runners can read the server's data, so strangers are refused: {self.isolation.reason}")
        if not self._settings.sandbox:
            found.append("Nix builds without its sandbox (executor.sandbox = false), so strangers are refused")
        if shutil.which("nix", path=_path()) is None:
            found.append("nix is not on PATH, so every Job will fail; install it (Debian: apt-get install nix-bin)")
        return found

    def slots(self) -> list[Slots]:
        """Configured slots that no living runner holds, for all that this machine can do."""
        return [Slots(self._systems(), max(0, self._settings.slots - len(self.alive())), evaluates=True)]

    def lacks(self, system: str) -> str:
        """This machine has another system."""
        return f"this server builds {', '.join(sorted(self._systems()))}, and not {system}"

    def start(self, order: StartOrder) -> str:
        """Start a runner, or find the one that this Attempt has; its process number."""
        if not ATTEMPT_ID.fullmatch(order.attempt_id):
            raise ExecutorError(f"{order.attempt_id!r} cannot name an attempt's directory")
        with self._lock:
            runner = self._runners.get(order.attempt_id)
            if runner is None:
                runner = self._spawn(order)
                self._runners[order.attempt_id] = runner
                processes.when_ended(runner.identity.pid, self._on_end)
            return str(runner.identity.pid)

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        """Send SIGTERM, or end the whole tree."""
        with self._lock:
            runner = self._runners.get(attempt_id)
            if runner is None or runner.ended():
                return
            runner.stopped = True
        if kill:
            processes.kill_tree(runner.identity.pid, KILL_SECONDS)
            return
        family = [runner.identity.pid, *processes.descendants(runner.identity.pid)]
        # bwrap keeps signals to itself; the runner is the first below it.
        target = next((pid for pid in family if processes.program(pid) != "bwrap"), runner.identity.pid)
        processes.send(target, signal.SIGTERM)

    def alive(self) -> frozenset[str]:
        """Attempts whose runners run."""
        with self._lock:
            return frozenset(name for name, runner in self._runners.items() if not runner.ended())

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:  # noqa: ARG002 - all are ours
        """Runners that ended since the last call; what they left on the disk is taken away."""
        with self._lock:
            ended = {name: runner for name, runner in self._runners.items() if runner.ended()}
            told = [self._describe(name, runner) for name, runner in ended.items()]
            told += [self._end_of(name, "nobody saw how", Reason.NODE_LOST) for name in self._lost]
            self._lost.clear()
            for name in ended:
                del self._runners[name]
        for end in told:
            self._clean(end.attempt_id)
        return [*told]

    def close(self) -> None:
        """Nothing to let go of: runners go on, and their records stay."""

    def _spawn(self, order: StartOrder) -> _Runner:
        name = order.attempt_id
        folder = self._attempts / name
        out_of_memory = processes.killed_for_memory()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            token_file = self._home.make_workdir(name, order.token)
            with (folder / "stderr").open("wb") as stderr:
                process = self._popen(self._environment(order, token_file), stderr.fileno(), token_file.parent)
            identity = processes.identify(process.pid) or Identity(process.pid, 0, processes.boot_id())
            draft = folder / "runner.new"
            draft.write_text(json.dumps(asdict(identity)), encoding="utf-8")
            draft.replace(folder / "runner.json")
        except OSError as error:
            self._clean(name)
            raise ExecutorError(f"the runner of attempt {name} cannot be started: {error}") from error
        log.info("runner started", attempt=name, pid=process.pid, isolation=self.isolation.kind)
        return _Runner(identity, process, out_of_memory)

    def _popen(self, environment: dict[str, str], stderr: int, workdir: Path) -> subprocess.Popen[bytes]:
        command = [self._python, "-I", "-S", str(self._home.zipapp)]
        start = self.isolation.start(command, hidden=self._hidden(), shown=[self._home.base])
        return subprocess.Popen(
            start.argv,
            env=environment,
            cwd="/" if self.isolation.kind is IsolationKind.BWRAP else workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            umask=0o077,
            user=start.user,
            group=start.group,
            extra_groups=start.extra_groups,
        )

    def _hidden(self) -> list[Path]:
        home = Path.home()
        personal = secrets_of_user(home, Path(self._python)) if home.is_dir() else []
        return [self._data, *(path for path in [*personal, *self._private] if path.exists())]

    def _environment(self, order: StartOrder, token_file: Path) -> dict[str, str]:
        own = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        return {
            "LANG": "C.UTF-8",
            **own,
            "PATH": _path(),
            "HOME": str(self._home.home),
            "USER": "albatros",
            "ALBATROS_URL": order.server_url,
            "ALBATROS_ATTEMPT": order.attempt_id,
            "ALBATROS_WORKDIR": str(token_file.parent),
            "ALBATROS_TOKEN_FILE": str(token_file),
            "ALBATROS_NIX_REMOTE": self._nix_store(),
        }

    def _nix_store(self) -> str:
        wanted = self._settings.nix_store or ("daemon" if DAEMON_SOCKET.exists() else PRIVATE_STORE)
        return f"local?root={self._home.home}/nix-root" if wanted == PRIVATE_STORE else wanted

    def _adopt(self) -> None:
        """Take over the runners that an earlier server process left."""
        for folder in sorted(self._attempts.iterdir()):
            identity = _read_identity(folder / "runner.json") or _find_unrecorded(self._home.workdir(folder.name))
            if identity is not None and processes.is_alive(identity):
                self._runners[folder.name] = _Runner(identity, None, processes.killed_for_memory())
                processes.when_ended(identity.pid, self._on_end)
                log.info("runner adopted", attempt=folder.name, pid=identity.pid)
            elif identity is not None:
                self._lost.append(folder.name)
            else:
                # Intended and never started: the dispatcher will ask for it again.
                self._clean(folder.name)

    def _systems(self) -> frozenset[str]:
        machine = platform.machine()
        own = MACHINE_SYSTEMS.get(machine, (f"{machine}-linux",))
        return frozenset((*own, *self._settings.extra_systems))

    def _describe(self, name: str, runner: _Runner) -> RunnerEnded:
        code = runner.exit_code()
        end = "nobody saw how" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._end_of(name, end, Reason.OOM if runner.was_out_of_memory() else Reason.NODE_LOST)

    def _end_of(self, name: str, end: str, reason: Reason) -> RunnerEnded:
        words = self._stderr_tail(name)
        told = f"{end}: {words}" if words else end
        return RunnerEnded(name, reason, f"its runner ended ({told}) without a report")

    def _stderr_tail(self, name: str) -> str:
        try:
            with (self._attempts / name / "stderr").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - STDERR_TAIL))
                return file.read(STDERR_TAIL).decode("utf-8", "replace").strip()
        except OSError as error:
            return f"(its stderr cannot be read: {error.strerror})"

    def _clean(self, name: str) -> None:
        try:
            self._home.remove_workdir(name)
        except ExecutorError as error:
            log.warning("an attempt left its directory behind", attempt=name, error=error.detail)
        shutil.rmtree(self._attempts / name, ignore_errors=True)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{FALLBACK_PATH}".strip(":")


def _read_identity(path: Path) -> Identity | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Identity(int(fields["pid"]), int(fields["start_ticks"]), str(fields["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_unrecorded(workdir: Path) -> Identity | None:
    pid = processes.find_by_environment(f"ALBATROS_WORKDIR={workdir}")
    return None if pid is None else processes.identify(pid)
