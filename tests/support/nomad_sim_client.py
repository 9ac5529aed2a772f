"""A node of the simulated Nomad: it runs the tasks of its allocations and tells the servers, while they hear it."""

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.nomad_sim_rows import SECOND, Allocation, Json, Node, moment, task_event, task_state
from tests.support.nomad_sim_scheduler import Scheduler
from tests.support.nomad_sim_state import State
from tests.support.nomad_sim_tasks import (
    Calls,
    DownloadError,
    Ended,
    Exits,
    Fails,
    FunctionTask,
    MissingVariableError,
    Outcome,
    Process,
    ProcessTask,
    Running,
    TaskContext,
    ToldTask,
    environment_of,
    fetch_artifacts,
    render_templates,
)

_NO_RESTARTS = "Policy allows no restarts"


@dataclass(eq=False)
class Run:
    """What a client knows of one allocation; the server learns it by `Client.tell`."""

    alloc: Allocation
    directory: Path
    state: Json = field(default_factory=task_state)
    status: str = "pending"
    description: str = "No tasks have started"
    task: Running | None = None
    generation: int = 0
    """Counts the starts: an end of an earlier one is not heard."""
    killing: bool = False
    restarting: bool = False
    preparing: threading.Thread | None = None

    @property
    def spec(self) -> Json:
        spec: Json = self.alloc.job.group["Tasks"][0]
        return spec

    def log(self, stream: str, data: bytes) -> None:
        """Add to a log of the task."""
        path = self.directory.parent / "alloc" / "logs" / f"{self.spec['Name']}.{stream}.0"
        with path.open("ab") as file:
            file.write(data)


class Client:
    """One node's agent. Calls are made with the state locked; tasks end in threads of their own, which lock it."""

    def __init__(
        self, node: Node, state: State, scheduler: Scheduler, home: Path, outcome: Callable[[Allocation], Outcome]
    ):
        self.node = node
        self.runs: dict[str, Run] = {}
        self.heard = True
        """Whether its heartbeats and updates reach a server."""
        self._state = state
        self._scheduler = scheduler
        self._home = home
        self._outcome = outcome

    def receive(self, alloc: Allocation) -> None:
        """Start what was placed here."""
        directory = self._home / alloc.id / alloc.job.group["Tasks"][0]["Name"]
        for part in (directory / "local", directory / "secrets", directory.parent / "alloc" / "logs"):
            part.mkdir(parents=True, exist_ok=True)
        run = self.runs[alloc.id] = Run(alloc, directory)
        if payload := run.spec["DispatchPayload"]:
            (directory / "local" / payload["File"]).write_bytes(base64.b64decode(alloc.job.spec["Payload"] or ""))
        self._note(run, "Received", DisplayMessage="Task received by client")
        text = "Building Task Directory"
        self._note(run, "Task Setup", DisplayMessage=text, Message=text, Details={"message": text})
        if limit := alloc.job.group["MaxRunDuration"]:
            self._state.clock.after(limit, lambda: self._out_of_time(run))
        self.prepare(run)

    def prepare(self, run: Run) -> None:
        """Templates, artifacts, start; a template without its variable waits for it."""
        if run.killing or run.preparing is not None:
            return
        try:
            render_templates(run.spec, run.directory, lambda path: self._variable(run, path))
        except MissingVariableError as missing:
            text = f"Missing: nomad.var.block({missing}@{run.alloc.namespace}.global)"
            if run.state["Events"][-1]["DisplayMessage"] != text:
                self._note(run, "Template", DisplayMessage=text)
                self.tell(run)
            return
        outcome = self._outcome(run.alloc)
        if isinstance(outcome, Fails):
            self._fail(run, outcome.kind, outcome.message)
        elif isinstance(outcome, Process) and run.spec["Artifacts"]:
            self._note(run, "Downloading Artifacts", DisplayMessage="Client is downloading artifacts")
            run.preparing = threading.Thread(target=self._download, args=(run, outcome), daemon=True)
            run.preparing.start()
        else:
            self._start(run, outcome)

    def kill(self, run: Run) -> None:
        """End a task because its allocation is not wanted any more."""
        if run.killing or run.status in ("complete", "failed"):
            return
        run.killing = True
        if run.task is None:
            self._finish(run, failed=False)
            return
        seconds = f"{run.spec['KillTimeout'] // SECOND}s"
        text = f"Sent interrupt. Waiting {seconds} before force killing"
        timeout: Json = {"KillTimeout": run.spec["KillTimeout"], "Details": {"kill_timeout": seconds}}
        self._note(run, "Killing", DisplayMessage=text, **timeout)
        run.task.interrupt()

    def restart(self, run: Run) -> None:
        """Restart a running task in its allocation, as `nomad alloc restart` does."""
        assert run.task is not None
        text = "User requested running tasks to restart"
        reason: Json = {"RestartReason": text, "Details": {"restart_reason": text}}
        self._note(run, "Restart Signaled", DisplayMessage=text, **reason)
        run.restarting = True
        run.task.kill()

    def lose_tasks(self) -> None:
        """The machine went down: every task is gone, and nobody notes it."""
        for run in self.runs.values():
            run.generation += 1
            if run.task is not None:
                run.task.kill()
                run.task = None

    def come_back(self) -> None:
        """The agent started again on a machine that rebooted: what should run is run again, in the same allocation."""
        for run in list(self.runs.values()):
            if run.status == "running" and run.task is None:
                text = "failed to restore task; will not run until server is contacted"
                self._note(run, "Failed Restoring Task", DisplayMessage=text)
                if run.alloc.desired_status == "run" and run.alloc.id in self._state.allocs:
                    self._start(run, self._outcome(run.alloc))
                else:
                    self._finish(run, failed=False)

    def reconnect(self) -> None:
        """The servers hear it again: it tells what happened, and learns what is not wanted any more."""
        self.heard = True
        for run in list(self.runs.values()):
            if run.alloc.client_status == "unknown":
                self._note(run, "Reconnected", DisplayMessage="Client reconnected")
            self.tell(run)
            if run.alloc.desired_status != "run" or run.alloc.id not in self._state.allocs:
                self.kill(run)

    def tell(self, run: Run) -> None:
        """Update the servers' row of an allocation, if they hear this client and know the allocation still."""
        alloc = run.alloc
        if not self.heard or alloc.id not in self._state.allocs:
            return
        was_unknown = alloc.client_status == "unknown"
        alloc.client_status, alloc.client_description = run.status, run.description
        alloc.tasks = {run.spec["Name"]: {**run.state, "Events": list(run.state["Events"])}}
        later = self._state.evals.get(alloc.followup_id) if was_unknown else None
        if later is not None and later.status == "pending":
            later.status, later.words["StatusDescription"] = "canceled", "allocs reconnected"
            alloc.followup_id = ""
            self._state.commit("EvaluationUpdated", [later])
        self._state.commit("AllocationUpdated", [alloc, *self._scheduler.settle(alloc.job)])
        if alloc.ended:
            self._scheduler.unblock()

    def _variable(self, run: Run, path: str) -> Json | None:
        found = self._state.variables.get((run.alloc.namespace, path))
        items: Json | None = found["Items"] if found else None
        return items

    def _download(self, run: Run, outcome: Outcome) -> None:
        failure = ""
        try:
            fetch_artifacts(run.spec, run.directory, environment_of(run.alloc, run.spec, run.directory))
        except DownloadError as error:
            failure = str(error)
        with self._state.locked():
            run.preparing = None
            if failure:
                self._fail(run, "Failed Artifact Download", failure)
            elif run.killing:
                self._finish(run, failed=False)
            else:
                self._start(run, outcome)

    def _start(self, run: Run, outcome: Outcome) -> None:
        run.generation += 1
        generation = run.generation

        def ended(end: Ended) -> None:
            with self._state.locked():
                if run.generation == generation:
                    self._ended(run, end)

        environment = environment_of(run.alloc, run.spec, run.directory)
        if isinstance(outcome, Process):
            try:
                run.task = ProcessTask(run.spec, run.directory, environment, ended)
            except OSError:
                program = run.spec["Config"]["command"]
                text = f'rpc error: code = Unknown desc = binary "{program}" could not be found'
                self._fail(run, "Driver Failure", f"failed to launch command with executor: {text}")
                return
        elif isinstance(outcome, Calls):
            context = TaskContext(environment, run.directory, threading.Event(), run.log)
            self._running(run)
            run.task = FunctionTask(outcome.function, context, ended)
            return
        else:
            assert isinstance(outcome, Exits)
            run.task = ToldTask(ended)
            run.log("stdout", outcome.stdout.encode())
            run.log("stderr", outcome.stderr.encode())
            if outcome.after is not None:
                self._state.clock.after(int(outcome.after * SECOND), lambda: ended(outcome.end))
        self._running(run)

    def _running(self, run: Run) -> None:
        run.status, run.description = "running", "Tasks are running"
        run.state["State"] = "running"
        run.state["StartedAt"] = run.state["StartedAt"] or moment(self._state.clock.now())
        self._note(run, "Started", DisplayMessage="Task started by client")
        self.tell(run)

    def _ended(self, run: Run, end: Ended) -> None:
        run.task = None
        run.generation += 1
        text = f"Exit Code: {end.code}" + (f", Signal: {end.signal}" if end.signal else "")
        details = {"exit_code": str(end.code), "signal": str(end.signal), "oom_killed": str(end.oom).lower()}
        self._note(run, "Terminated", DisplayMessage=text, ExitCode=end.code, Signal=end.signal, Details=details)
        if run.restarting:
            run.restarting = False
            run.state["Restarts"] += 1
            run.state["LastRestart"] = moment(self._state.clock.now())
            again: Json = {"Details": {"restart_reason": "", "start_delay": "0"}}
            self._note(run, "Restarting", DisplayMessage="Task restarting in 0s", **again)
            self._start(run, self._outcome(run.alloc))
            return
        if run.killing:
            self._note(run, "Killed", DisplayMessage="Task successfully killed")
        elif end.code != 0:
            self._not_restarting(run)
        self._finish(run, failed=end.code != 0 and not run.killing)

    def _fail(self, run: Run, kind: str, message: str) -> None:
        word = {"Driver Failure": "driver_error", "Failed Artifact Download": "download_error"}.get(kind, "setup_error")
        name = {"driver_error": "DriverError", "download_error": "DownloadError", "setup_error": "SetupError"}[word]
        shown: Json = {"DisplayMessage": message, "Details": {word: message}, name: message}
        self._note(run, kind, **shown)
        self._not_restarting(run)
        self._finish(run, failed=True)

    def _not_restarting(self, run: Run) -> None:
        details = {"restart_reason": _NO_RESTARTS, "fails_task": "true"}
        more: Json = {"RestartReason": _NO_RESTARTS, "FailsTask": True, "Details": details}
        self._note(run, "Not Restarting", DisplayMessage=_NO_RESTARTS, **more)

    def _finish(self, run: Run, *, failed: bool) -> None:
        run.state.update(State="dead", Failed=failed, FinishedAt=moment(self._state.clock.now()))
        if run.description != "allocation exceeded max_run_duration":
            run.description = "Failed tasks" if failed else "All tasks have completed"
        run.status = "failed" if failed else "complete"
        self.tell(run)

    def _out_of_time(self, run: Run) -> None:
        with self._state.locked():
            if run.status not in ("pending", "running") or run.killing:
                return
            run.killing = True
            text, seconds = "allocation exceeded max_run_duration", f"{run.spec['KillTimeout'] // SECOND}s"
            timeout: Json = {"KillTimeout": run.spec["KillTimeout"], "Details": {"kill_timeout": seconds}}
            self._note(run, "Killing", DisplayMessage=text, **timeout)
            run.status, run.description = "complete", text
            run.state["FinishedAt"] = moment(self._state.clock.now())
            self.tell(run)
            if run.task is not None:
                run.task.interrupt()

    def _note(self, run: Run, kind: str, **given: object) -> None:
        run.state["Events"].append(task_event(kind, self._state.clock.now(), **given))
