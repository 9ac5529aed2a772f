"""The tokens of Attempts in Nomad's Variables: taken away when the Attempt is closed, whoever wrote them.

A server that was killed does not take its own away, so each looks for what is left. An Attempt is open before its token
is written: one that was seen, and still is when its Attempt is not open, belongs to a closed one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from albatros.errors import ExecutorError, ExecutorUnavailableError
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_job import INSTALLATION, PREFIX, TOKEN_ITEM, VARIABLES, variable_path
from albatros.log import get_logger

log = get_logger(__name__)
THREADS = 2
SEARCH_SECONDS = 10.0
_FOLDER = VARIABLES + PREFIX


class Tokens:
    """Writes them, and takes them away in threads of its own. Safe to use from several threads."""

    def __init__(self, nomad: NomadApi, installation: str, on_refusal: Callable[[], None]) -> None:
        """`installation` marks our tokens among others'; `on_refusal` is called when Nomad has no time."""
        self._nomad = nomad
        self._installation = installation
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._written: set[str] = set()
        self._search_at = 0.0
        self._seen: frozenset[str] = frozenset()
        self._foreign: frozenset[str] = frozenset()
        """Seen ones that others wrote: to read them again in each search would be a call for every runner of theirs."""
        self._problem = ""
        """Why the last search failed: it is told when it changes, not each time."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="nomad-tidy")

    def write(self, attempt_id: str, token: str) -> None:
        """Put a token where its job alone may read it. Raises what `NomadApi` raises."""
        with self._lock:
            # Before the call: its answer may be lost after it took effect.
            self._written.add(attempt_id)
        items = {TOKEN_ITEM: token, INSTALLATION: self._installation}
        self._nomad.put_variable(variable_path(attempt_id), items)

    def tidy(self, open_attempts: Collection[str]) -> None:
        """Have the tokens of closed Attempts taken away soon; those of the open ones stay."""
        with self._lock:
            closed = self._written.difference(open_attempts)
            self._written -= closed
            search = time.monotonic() >= self._search_at
            if search:
                self._search_at = time.monotonic() + SEARCH_SECONDS
        for attempt_id in closed:
            self._threads.submit(self._forget, attempt_id)
        if search:
            self._threads.submit(self._search, frozenset(open_attempts))

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _forget(self, attempt_id: str) -> None:
        try:
            self._nomad.delete_variable(variable_path(attempt_id))
        except ExecutorUnavailableError:
            self._on_refusal()
            with self._lock:
                self._written.add(attempt_id)
        except ExecutorError as error:
            log.error("the token of a closed attempt stays in Nomad", attempt=attempt_id, error=error.detail)

    def _search(self, open_attempts: frozenset[str]) -> None:
        try:
            seen = frozenset(path.removeprefix(_FOLDER) for path in self._nomad.variables(_FOLDER))
            foreign = self._foreign & seen
            for attempt_id in (seen & self._seen) - open_attempts - foreign:
                items = self._nomad.variable(variable_path(attempt_id))
                if items.get(INSTALLATION) == self._installation:
                    self._forget(attempt_id)
                elif items:
                    foreign |= {attempt_id}
        except ExecutorError as error:
            if error.detail != self._problem:
                log.warning("Nomad cannot be searched for tokens of closed attempts", error=error.detail)
            self._problem = error.detail
            return
        self._seen, self._foreign, self._problem = seen, foreign, ""
