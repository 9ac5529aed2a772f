"""How a task of the simulated Nomad runs: as a real process, as a function of the test, or as a told outcome."""

import hashlib
import os
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.nomad_sim_rows import Allocation, Json

_VARIABLE = re.compile(r'\{\{-?\s*with nomadVar "([^"]+)"\s*-?\}\}(.*?)\{\{-?\s*end\s*-?\}\}', re.DOTALL)
_FIELD = re.compile(r"\{\{-?\s*\.(\w+)(?:\.Value)?\s*-?\}\}")
_NAME = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended, as its driver saw it."""

    code: int = 0
    signal: int = 0
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Fails:
    """It never starts: `Driver Failure`, `Setup Failure` or `Failed Artifact Download`, with a sentence."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Exits:
    """It ends after so many seconds of the simulated clock, None for only when it is killed."""

    after: float | None = 0.0
    end: Ended = Ended()
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """A function of the test is the task; it returns the exit code, and ends soon when `stop` is set."""

    function: "Callable[[TaskContext], int]"


@dataclass(frozen=True, slots=True)
class Process:
    """The command of the job is really started, with its artifacts and templates, as raw_exec does."""


Outcome = Fails | Exits | Calls | Process


@dataclass(frozen=True)
class TaskContext:
    """What a task finds around it: its environment, its directory, and whether it is told to end."""

    environment: Mapping[str, str]
    directory: Path
    stop: threading.Event
    log: Callable[[str, bytes], None]
    """Writes to `stdout` or `stderr`."""


class Running(Protocol):
    """A started task."""

    def interrupt(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it, as the kernel does; its end is told as usual."""
        ...


class MissingVariableError(Exception):
    """A template waits for a variable, whose name this says."""


class DownloadError(Exception):
    """An artifact cannot be fetched, or is another."""


def environment_of(alloc: Allocation, task: Json, directory: Path) -> dict[str, str]:
    """The variables that Nomad gives a task."""
    given = {
        "NOMAD_ALLOC_ID": alloc.id,
        "NOMAD_ALLOC_DIR": str(directory.parent / "alloc"),
        "NOMAD_ALLOC_NAME": alloc.name,
        "NOMAD_GROUP_NAME": alloc.job.group["Name"],
        "NOMAD_JOB_ID": alloc.job.id,
        "NOMAD_NAMESPACE": alloc.namespace,
        "NOMAD_SECRETS_DIR": str(directory / "secrets"),
        "NOMAD_TASK_DIR": str(directory / "local"),
        "NOMAD_TASK_NAME": task["Name"],
        "PATH": os.environ["PATH"],
    }
    for part in (alloc.job.spec, alloc.job.group, task):
        for key, value in (part["Meta"] or {}).items():
            given[f"NOMAD_META_{key}"] = given[f"NOMAD_META_{key.upper()}"] = str(value)
    return {**given, **{key: interpolate(str(value), given) for key, value in (task["Env"] or {}).items()}}


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """`${NOMAD_…}` and `${env["…"]}` by their values."""
    return _NAME.sub(lambda found: environment.get(re.sub(r'env\["|"\]', "", found[1]), ""), text)


def render_templates(task: Json, directory: Path, variable: Callable[[str], Json | None]) -> None:
    """Write a task's templates; `variable` finds a Nomad Variable's items."""

    def block(found: re.Match[str]) -> str:
        items = variable(found[1])
        if items is None:
            raise MissingVariableError(found[1])
        return _FIELD.sub(lambda key: str(items[key[1]]), found[2])

    for template in task["Templates"] or []:
        text = _VARIABLE.sub(block, template["EmbeddedTmpl"])
        assert "{{" not in text, f"the simulated Nomad does not know this template: {text}"
        target = directory / template["DestPath"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(int(template.get("Perms") or "0644", 8))


def fetch_artifacts(task: Json, directory: Path, environment: Mapping[str, str]) -> None:
    """Download what a task needs, and hold it against its checksum."""
    for artifact in task["Artifacts"] or []:
        source = interpolate(artifact["GetterSource"], environment)
        asked = urllib.request.Request(source, headers=artifact.get("GetterHeaders") or {})
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                data = answer.read()
        except OSError as error:
            raise DownloadError(f'failed to download artifact "{source}": {error}') from error
        wanted = (artifact.get("GetterOptions") or {}).get("checksum", "")
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if wanted and wanted != found:
            text = f"Checksums did not match.\nExpected: {wanted}\nGot: {found}"
            raise DownloadError(f'failed to download artifact "{source}": {text}')
        target = directory / (artifact.get("RelativeDest") or "local/")
        if artifact.get("GetterMode") != "file":
            target = target / source.rpartition("/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


class ProcessTask:
    """A process in a session of its own; `ended` is called from a thread, once."""

    def __init__(self, task: Json, directory: Path, environment: Mapping[str, str], ended: Callable[[Ended], None]):
        """Raises OSError when the command cannot be started."""
        command = interpolate(str(task["Config"]["command"]), environment)
        arguments = [interpolate(str(one), environment) for one in task["Config"].get("args") or []]
        logs = directory.parent / "alloc" / "logs"
        with (
            (logs / f"{task['Name']}.stdout.0").open("ab") as out,
            (logs / f"{task['Name']}.stderr.0").open("ab") as err,
        ):
            self._process = subprocess.Popen(
                [command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
            )
        self._signal = signal.Signals[task["KillSignal"] or "SIGINT"]
        self._patience = task["KillTimeout"] / 1e9
        self.thread = threading.Thread(target=self._wait, args=(ended,), daemon=True)
        self.thread.start()

    def interrupt(self) -> None:
        def give_up() -> None:
            if self._process.poll() is None:
                self.kill()

        self._process.send_signal(self._signal)
        timer = threading.Timer(self._patience, give_up)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _wait(self, ended: Callable[[Ended], None]) -> None:
        code = self._process.wait()
        ended(Ended(128 - code, -code) if code < 0 else Ended(code))


class FunctionTask:
    """A function of the test in a thread. It cannot be killed: `kill` makes nobody hear it any more."""

    def __init__(self, function: Callable[[TaskContext], int], context: TaskContext, ended: Callable[[Ended], None]):
        self._context = context
        self._ended = ended
        self._killed = False
        self.thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self.thread.start()

    def interrupt(self) -> None:
        self._context.stop.set()

    def kill(self) -> None:
        self._context.stop.set()
        self._killed = True
        self._ended(Ended(137, 9))

    def _run(self, function: Callable[[TaskContext], int]) -> None:
        try:
            code = function(self._context)
        except OSError:
            # The directory of a task goes with the simulator that ended it.
            if self._context.stop.is_set():
                return
            raise
        if not self._killed:
            self._ended(Ended(code))


class ToldTask:
    """A task that ends when the clock says so, or when it is told to."""

    def __init__(self, ended: Callable[[Ended], None]):
        self._ended = ended

    def interrupt(self) -> None:
        self._ended(Ended(130, 2))

    def kill(self) -> None:
        self._ended(Ended(137, 9))
