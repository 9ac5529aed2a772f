"""A builder that is a parameterized job of Nomad, dispatched once for each Attempt and followed by plain requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from albatros.domain.states import Reason
from albatros.errors import ExecutorError, ExecutorUnavailableError
from albatros.executors.builder_base import ChildState, LogPlace, LogRead, LogRest, Phase, Stream
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_facts import facts_of
from albatros.executors.nomad_job import GROUP, PREFIX, TASK
from albatros.executors.nomad_json import Document, rows, text, within, words
from albatros.executors.nomad_logs import NomadLogs
from albatros.executors.nomad_words import Allocation, end_of, newest, read_allocation, wait_of
from albatros.settings import NomadSettings

META_KEYS = ("REPO_URL", "COMMIT", "BRANCH", "FLAVOR")
DISPATCH_TRIES = 3
_CHILD = re.compile(rf"/dispatch-{PREFIX}([0-9a-f-]{{36}})-[0-9]+-[0-9a-f]+$")


class NomadBuilder:
    """See `Builder` for what each call promises. Safe to use from several threads."""

    def __init__(self, settings: NomadSettings, job: str) -> None:
        """Open nothing yet; the job is in the namespace of these settings. Raises ConfigError."""
        self._settings = settings
        self._api = api = NomadApi(settings)
        self._job = job
        self._logs = NomadLogs(api, TASK)

    def check(self) -> None:
        """Say what is wrong with Nomad, or with the operator's job, in words of ours."""
        if not self._settings.without_acl and not self._api.has_acl():
            raise ExecutorError(
                "Nomad has its ACLs off, so that whoever reaches it may do everything there: turn them on, "
                "or set nomad.without_acl = true"
            )
        job = self._api.job(self._job)
        where = f"the job {self._job!r} of [[builders]]"
        if job is None:
            raise ExecutorError(f"{where} is not in Nomad's namespace {self._api.namespace!r}: register it there")
        parameters = within(job, "ParameterizedJob")
        if not parameters:
            raise ExecutorError(f"{where} has no `parameterized` block: see docs/how-to/bring-your-own-builder.md")
        known = {*words(parameters, "MetaRequired"), *words(parameters, "MetaOptional")}
        missing = [key for key in META_KEYS if key not in known]
        if missing:
            raise ExecutorError(f"{where} does not take the meta key {missing[0]}: list it under `parameterized`")
        foreign = [key for key in words(parameters, "MetaRequired") if key not in META_KEYS]
        if foreign:
            raise ExecutorError(f"{where} requires the meta key {foreign[0]}, which Albatros does not give: drop it")
        if text(parameters, "Payload") == "required":
            raise ExecutorError(f"{where} requires a payload, and Albatros gives none: forbid it under `parameterized`")
        groups = (group for group in rows(job.get("TaskGroups")) if text(group, "Name") == GROUP)
        if TASK not in [text(task, "Name") for group in groups for task in rows(group.get("Tasks"))]:
            raise ExecutorError(f"{where} has no task {TASK!r} in a group {GROUP!r}: rename what it has")

    def dispatch(self, attempt_id: str, meta: Mapping[str, str]) -> str:
        """Dispatch the job with the Attempt's id as the token, and see that the child is there.

        A caller that races another with the same token can be told the id of a child that never came to be.
        """
        self.check()
        for _ in range(DISPATCH_TRIES):
            child = self._api.dispatch(self._job, attempt_id, f"{PREFIX}{attempt_id}", meta)
            if child and self._api.job(child) is not None:
                return child
        raise ExecutorUnavailableError(f"Nomad dispatched {self._job}, and does not know the child that it named")

    def look(self, child: str) -> ChildState:
        """How its newest allocation goes: Nomad makes another one when a node is lost, or as the job's policy says."""
        job = self._api.job(child)
        if job is None:
            return ChildState(Phase.GONE, f"Nomad no longer knows {child}, so nobody can say how it ended")
        dead = text(job, "Status") == "dead"
        found = list(rows(self._api.allocations_of(child)))
        allocation = newest([read_allocation(document) for document in found])
        waits = "" if dead or allocation is not None else self._why_it_waits(child)
        facts = facts_of(self._settings, child, allocation, dead=dead, waits=waits)
        if allocation is not None:
            document = next(one for one in found if text(one, "ID") == allocation.id)
            return replace(_state_of(allocation, document, dead=dead), placement=facts)
        if dead:
            detail = "it was stopped in Nomad before it ran"
            return ChildState(Phase.ENDED, detail, Reason.PREEMPTED, placement=facts)
        return ChildState(Phase.WAITING, waits, placement=facts)

    def read_log(self, allocation: str, stream: Stream, place: LogPlace, most: int) -> LogRead:
        """What follows `place` in a log of the task."""
        return self._logs.read(allocation, stream, place, most)

    def read_log_rest(self, allocation: str, stream: Stream, place: LogPlace, length: int) -> LogRest:
        """Count what follows `place`, in one pass."""
        return self._logs.read_rest(allocation, stream, place, length)

    def read_log_end(self, allocation: str, stream: Stream, length: int) -> bytes:
        """The last bytes of a log of the task."""
        return self._logs.read_end(allocation, stream, length)

    def stop(self, child: str) -> None:
        """Deregister it without purging, so that it can be looked at in Nomad."""
        self._api.deregister(child)

    def running(self) -> Mapping[str, str]:
        """Children with an Attempt's id in their own that have not ended, and that nobody has stopped."""
        found = {}
        _, stubs = self._api.jobs(f"{self._job}/dispatch-{PREFIX}", dead=False)
        for stub in stubs:
            match = _CHILD.search(text(stub, "ID"))
            if match is not None and stub.get("Stop") is not True:
                found[text(stub, "ID")] = match[1]
        return found

    def close(self) -> None:
        """Close the connections to Nomad."""
        self._api.close()

    def _why_it_waits(self, child: str) -> str:
        told = (wait_of(evaluation) for evaluation in self._api.evaluations_of(child))
        return next(filter(None, told), "Nomad has not looked for a place yet")


def _state_of(allocation: Allocation, document: Document, *, dead: bool) -> ChildState:
    """A child by its newest allocation. It has ended once that has, and Nomad says `dead`.

    Before, it may be started again; and a job that was stopped is dead while its task still ends.
    """
    phase, reason, detail = Phase.WAITING, None, "its allocation has not begun"
    if dead and allocation.ended:
        phase = Phase.ENDED
        reason, detail = _end_of(allocation)
    elif text(within(document, "TaskStates", TASK), "StartedAt"):
        phase, detail = Phase.RUNNING, ""
    elif allocation.events:
        detail = allocation.events[-1].message
    return ChildState(phase, detail, reason, allocation.id, allocation.node)


def _end_of(allocation: Allocation) -> tuple[Reason | None, str]:
    """`complete` is no success, and nobody but Nomad tells how a builder ended."""
    reason, detail = end_of(allocation) or (Reason.NODE_LOST, f"nobody saw how it ended on {allocation.node}")
    if reason is Reason.OOM:
        return reason, f"it used more memory on {allocation.node} than its task has"
    if reason is not Reason.NODE_LOST or allocation.client_status == "lost" or allocation.exit_code is None:
        return reason, detail
    if allocation.exit_code == 0 and allocation.signal == 0:
        return None, ""
    end = f"signal {allocation.signal}" if allocation.signal else f"exit code {allocation.exit_code}"
    return Reason.BUILD_FAILED, f"its task ended on {allocation.node} with {end}"
