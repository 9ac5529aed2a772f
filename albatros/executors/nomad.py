"""The executor on a Nomad cluster: one batch job for each Attempt, under an id that is known before it is sent.

Nomad places, isolates and tells when a node is dead; the queue stays in our database, and the result comes from the
runner. Nomad may start a job twice (a lost node, a rebooted one, a person): the runner's claim is the fence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import urlsplit

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ExecutorError, ExecutorUnavailableError, NoCapacityError
from albatros.executors.base import RunnerEnded, RunnerNews, RunnerPlaced, RunnerUnseen, Slots, StartOrder
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_facts import facts_of
from albatros.executors.nomad_job import (
    ARCHITECTURES,
    PREFIX,
    SYSTEM,
    TASK,
    RunnerSource,
    job_id,
    render,
    variable_path,
)
from albatros.executors.nomad_json import text, within
from albatros.executors.nomad_tokens import Tokens
from albatros.executors.nomad_watch import Cluster, JobView, Load, Watcher, is_over
from albatros.executors.nomad_words import Node, end_of, newest, read_allocation, wait_of
from albatros.log import get_logger
from albatros.settings import NomadDriver, NomadSettings

log = get_logger(__name__)
FIRST_WAITING = 8
"""Jobs of a system that may be on their way to a node before any runs."""
LOOKS = 20
"""Jobs that one poll asks about, of which no event told."""
UNSEEN_SECONDS = 30.0
SLOW_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STDERR_TAIL = 4096


class _Pace:
    """Slows us down while Nomad is slow: after a slow start we wait as long as it took, after refusals ever longer."""

    def __init__(self) -> None:
        self._until = 0.0
        self._pause = FIRST_PAUSE

    @property
    def resting(self) -> bool:
        """Whether nothing should be sent now."""
        return time.monotonic() < self._until

    def took(self, seconds: float) -> None:
        """A start was accepted after so long."""
        self._pause = FIRST_PAUSE
        if seconds > SLOW_SECONDS:
            self._until = time.monotonic() + seconds

    def refused(self) -> None:
        """Nomad had no time, or did not answer."""
        self._until = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


class NomadExecutor:
    """Runs Attempts on a cluster; see `Executor` for what each call promises. Safe to use from several threads."""

    name = "nomad"
    shared = True

    def __init__(
        self,
        settings: NomadSettings,
        runner: RunnerSource,
        installation: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`installation` tells the jobs of our servers from those of others in the namespace.

        Raises ConfigError for certificates that cannot be read, and for a Nomad that lets everybody do everything.
        """
        self._settings = settings
        self._runner = runner
        self._installation = installation
        self._nomad = NomadApi(settings)
        self._cluster = Cluster()
        self._watcher = Watcher(self._nomad, self._cluster, installation, settings.without_acl, on_change)
        self._pace = _Pace()
        self._unseen_again = 0.0
        self._told: dict[str, JobView] = {}
        self._tokens = Tokens(self._nomad, installation, self._pace.refused)
        try:
            self._watcher.check_acl()
        except ExecutorError as error:
            log.warning("Nomad does not answer; Jobs wait until it does", error=error.detail)

    @property
    def takes_strangers(self) -> bool:
        """Whether runners are shut off well enough for what nobody trusted has pushed: raw_exec shuts nothing off."""
        return self._settings.driver is not NomadDriver.RAW_EXEC or bool(self._settings.user)

    def warnings(self) -> list[str]:
        """What an operator should know of how Jobs run here."""
        found = []
        if not self.takes_strangers:
            found.append(
                "nomad.driver = 'raw_exec' runs evaluations as the user of the Nomad agent, so strangers are refused; "
                "set nomad.user, or use another driver"
            )
        if self._settings.without_acl:
            found.append("nomad.without_acl = true: whoever reaches Nomad reads every token of a Job")
        open_ones = [address for address in self._settings.addresses if not _is_private(address)]
        if open_ones:
            found.append(f"tokens travel unencrypted to {', '.join(open_ones)}; use https:// (mTLS) for Nomad")
        return found

    def slots(self) -> Sequence[Slots]:
        """One group for evaluations and one for each system that some node has, also one that takes no work now."""
        self._watcher.ensure_started()
        nodes = self._nodes()
        if not self._cluster.known or not nodes:
            return []
        loads = self._cluster.loads()
        systems = sorted(frozenset[str]().union(*(self._systems(node) for node in nodes)))
        evaluations = Slots(frozenset(), self._room(loads.get("")), evaluates=True)
        builds = [Slots(frozenset({name}), self._room(loads.get(name)), evaluates=False) for name in systems]
        return [evaluations, *builds]

    def lacks(self, system: str) -> str:
        """No node has this system."""
        what = "nix_system" if self._settings.place_by == "meta" else "a processor for"
        return f"0 of {len(self._nodes())} nodes have {what}={system}"

    def start(self, order: StartOrder) -> str:
        """Write the token's Variable, then register the job; both may be repeated."""
        name = job_id(order.attempt_id)
        if self._pace.resting:
            raise ExecutorUnavailableError("Nomad was slow or refused the last call; it is given a rest")
        nodes = self._nodes()
        if not order.trusted and nodes and not any(node.sandbox for node in nodes):
            raise NoCapacityError(
                f"0 of {len(nodes)} nodes have nix_sandbox=true, which a stranger's build needs; set it in the meta of "
                "nodes whose Nix builds in its sandbox"
            )
        job = render(self._settings, self._runner, self._installation, order)
        began = time.monotonic()
        try:
            self._tokens.write(order.attempt_id, order.token)
            self._nomad.register(job)
        except ExecutorUnavailableError:
            self._pace.refused()
            raise
        self._pace.took(time.monotonic() - began)
        self._cluster.add(order.attempt_id, order.system)
        return name

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        """Stop the job: Nomad interrupts the runner, and kills it 30 s later; `kill` takes the Variable too."""
        self._nomad.deregister(job_id(attempt_id))
        self._cluster.end(attempt_id)
        if kill:
            self._nomad.delete_variable(variable_path(attempt_id))

    def alive(self) -> frozenset[str]:
        """Attempts whose jobs wait or run in Nomad."""
        self._watcher.ensure_started()
        return self._cluster.alive()

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:
        """What Nomad says of open Attempts; of those that it does not speak of, it is asked."""
        self._watcher.ensure_started()
        if not self._pace.resting:
            self._tokens.tidy(open_attempts)
        if not self._cluster.known:
            return self._unseen(open_attempts)
        news: list[RunnerNews] = []
        looks = LOOKS
        for attempt_id, state in open_attempts.items():
            # Of one that is being submitted, nobody knows yet whether Nomad has it.
            if state is AttemptState.SUBMITTING:
                continue
            view = self._cluster.view(attempt_id)
            if view is None or view.doubtful or (view.dead and view.allocation is None):
                view = self._look(attempt_id, news) if looks else None
                looks = max(0, looks - 1)
            if view is not None:
                news += self._news(attempt_id, view)
        self._told = {name: view for name, view in self._told.items() if name in open_attempts}
        return news

    def close(self) -> None:
        """Stop following Nomad; jobs go on."""
        self._watcher.stop()
        self._tokens.close()
        self._nomad.close()

    def _unseen(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:
        """Nomad is away: what waits in it for a place must not run out of time, which is said now and then."""
        if time.monotonic() < self._unseen_again:
            return []
        self._unseen_again = time.monotonic() + UNSEEN_SECONDS
        return [RunnerUnseen(name) for name, state in open_attempts.items() if state is AttemptState.SUBMITTED]

    def _news(self, attempt_id: str, view: JobView) -> list[RunnerNews]:
        end = self._end(view)
        told, self._told[attempt_id] = self._told.get(attempt_id), view
        # A view that came with a listing is another object: whoever waits is told again, so that his time goes on.
        changed = told is not view if view.waiting else told != view
        placed = [RunnerPlaced(attempt_id, view.waiting, self._facts(attempt_id, view))] if changed else []
        return [*placed, RunnerEnded(attempt_id, *end)] if end else [*placed]

    def _end(self, view: JobView) -> tuple[Reason, str] | None:
        if view.allocation is None:
            stopped = (Reason.PREEMPTED, "its job was stopped in Nomad before it had a place")
            return stopped if view.dead else None
        end = end_of(view.allocation)
        if end is None or view.allocation.exit_code is None or end[0] is not Reason.NODE_LOST:
            return end
        try:
            words = self._nomad.log_tail(view.allocation.id, TASK, STDERR_TAIL)
        except ExecutorError as error:
            words = f"(its stderr cannot be read: {error.detail})"
        return end[0], f"{end[1]}: {words}" if words else end[1]

    def _look(self, attempt_id: str, news: list[RunnerNews]) -> JobView | None:
        """Ask about one job; None when that cannot be said, or it is gone, which is added to the news."""
        name = job_id(attempt_id)
        try:
            job = self._nomad.job(name)
            if job is None:
                news.append(RunnerEnded(attempt_id, Reason.NODE_LOST, "Nomad does not have its job any more"))
                return None
            allocation = newest([read_allocation(row) for row in self._nomad.allocations_of(name)])
            waits = "" if allocation else "; ".join(filter(None, map(wait_of, self._nomad.evaluations_of(name)[:1])))
        except ExecutorError as error:
            log.warning("Nomad cannot be asked about a job", attempt=attempt_id, error=error.detail)
            return None
        view = JobView(text(within(job, "Meta"), SYSTEM), allocation, waits, is_over(job))
        return self._cluster.put(attempt_id, view)

    def _facts(self, attempt_id: str, view: JobView) -> dict[str, object]:
        """What people are shown of where an Attempt is."""
        return facts_of(self._settings, PREFIX + attempt_id, view.allocation, dead=view.dead, waits=view.waits)

    def _nodes(self) -> list[Node]:
        """Nodes that the jobs may go to."""
        wanted = self._settings
        return [
            node
            for node in self._cluster.nodes()
            if wanted.node_pool in {node.pool, "all"}
            and wanted.node_class in {node.node_class, ""}
            and any(fnmatchcase(node.datacenter, pattern) for pattern in wanted.datacenters)
        ]

    def _systems(self, node: Node) -> frozenset[str]:
        if self._settings.place_by == "meta":
            return node.systems
        return frozenset(f"{name}-linux" for name, arch in ARCHITECTURES.items() if arch == node.arch)

    def _room(self, load: Load | None) -> int:
        """How many more may be sent: what waits in Nomad is a fraction of what runs there."""
        if self._pace.resting:
            return 0
        load = load or Load(0, 0, 0)
        share = math.ceil(load.running * self._settings.queue_percent / 100)
        bound = max(1, share) if load.blocked else max(FIRST_WAITING, share)
        return max(0, bound - load.waiting)


def _is_private(address: str) -> bool:
    """Whether nobody on the way reads what goes to this URL."""
    parts = urlsplit(address)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
