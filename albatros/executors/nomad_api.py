"""Calls to Nomad's HTTP API, and what goes wrong with them. The only place that speaks HTTP to Nomad.

python-nomad makes the plain calls; listings with pages, logs and the event stream go through httpx, since python-nomad
2.1.0 hides headers and loses its event thread.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import httpx

from albatros.domain.text import plain
from albatros.errors import ConfigError, ExecutorError, ExecutorUnavailableError
from albatros.executors.nomad_errors import EXISTS, NomadBusyError, NomadMissingError, refusal, unreachable
from albatros.executors.nomad_json import Document, mapping, rows, text, within
from albatros.executors.nomad_plain import CONNECT_SECONDS, MAX_ANSWER, READ_SECONDS, Endpoints, our_errors
from albatros.settings import NomadSettings

T = TypeVar("T")
SILENT_STREAM_SECONDS = 45.0
"""Nomad sends a heartbeat every 30 s; a stream that is silent for longer is dead."""
MAX_LINE = 8 << 20
PAGE = 500
MAX_PAGES = 400
TOPICS = ("Job", "Allocation", "Evaluation", "Node")


@dataclass(frozen=True, slots=True)
class _Answer:
    content: bytes
    index: int
    next_token: str


@dataclass(frozen=True, slots=True)
class _Page:
    index: int
    rows: list[Document]


class NomadApi:
    """Nomad, over the first of its addresses that answers. Safe to use from several threads.

    Calls raise NomadMissingError, NomadForbiddenError, ExecutorError for what is refused for good, NomadBusyError, and
    ExecutorUnavailableError when it is not known whether the call took effect.
    """

    def __init__(self, settings: NomadSettings) -> None:
        """Open nothing yet. Raises ConfigError when a certificate cannot be read."""
        self._settings = settings
        self._addresses = [address.rstrip("/") for address in settings.addresses]
        self._token = settings.token.get_secret_value()
        self._preferred = 0
        self._local = threading.local()
        self._opened: list[Endpoints] = []
        headers = {"X-Nomad-Token": self._token} if self._token else {}
        self._params = {"namespace": settings.namespace, **({"region": settings.region} if settings.region else {})}
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.Client(headers=headers, verify=_tls(settings), timeout=timeout, trust_env=False)

    @property
    def namespace(self) -> str:
        """The namespace of every call."""
        return self._settings.namespace

    def register(self, job: Document) -> bool:
        """Make a job if there is none of its id (a compare-and-set on index 0); False when there is one."""
        body = {"Job": job, "EnforceIndex": True, "JobModifyIndex": 0}
        try:
            self._plain(f"register {job['ID']}", lambda at: at.jobs.register_job(body))
        except ExecutorError as error:
            if EXISTS.search(error.detail):
                return False
            raise
        return True

    def job(self, job_id: str) -> Document | None:
        """A job, None when there is none."""
        try:
            return mapping(self._plain(f"read job {job_id}", lambda at: at.job.get_job(job_id)))
        except NomadMissingError:
            return None

    def deregister(self, job_id: str) -> None:
        """Stop a job; one that is not there is no error. It stays readable until Nomad collects it."""
        self._plain(f"stop job {job_id}", lambda at: at.job.deregister_job(job_id, purge=False))

    def dispatch(self, job_id: str, token: str, id_prefix: str, meta: Mapping[str, str]) -> str:
        """Run a parameterized job; the id of its child, the same for the same `token` until Nomad collects it.

        Through httpx: python-nomad 2.1.0 sends the token in the body, and Nomad looks for it in the query.
        """
        what = f"dispatch {job_id}"
        body = {"Meta": dict(meta), "IdPrefixTemplate": id_prefix}
        path = f"/v1/job/{quote(job_id, safe='')}/dispatch"
        answer = self._send(what, "POST", path, {"idempotency_token": token}, body)
        return text(mapping(_decode(what, answer.content)), "DispatchedJobID")

    def allocations_of(self, job_id: str) -> list[Document]:
        """Every allocation of a job, with its tasks' states."""
        what = f"read allocations of {job_id}"
        return list(rows(self._plain(what, lambda at: at.job.get_allocations(job_id, all_=True))))

    def evaluations_of(self, job_id: str) -> list[Document]:
        """Every evaluation of a job."""
        what = f"read evaluations of {job_id}"
        return list(rows(self._plain(what, lambda at: at.job.get_evaluations(job_id))))

    def node(self, node_id: str) -> Document:
        """A node with its meta, which listings lack."""
        return mapping(self._plain(f"read node {node_id}", lambda at: at.node.get_node(node_id)))

    def put_variable(self, path: str, items: Mapping[str, str]) -> None:
        """Write a Variable, over what is there."""
        body = {"Path": path, "Items": dict(items)}
        self._plain(
            f"write variable {path}",
            lambda at: at.variable.create_variable(path, body, namespace=self.namespace),
        )

    def variable(self, path: str) -> Document:
        """What is in a Variable; nothing when there is none."""
        try:
            found = self._plain(
                f"read variable {path}", lambda at: at.variable.get_variable(path, namespace=self.namespace)
            )
        except NomadMissingError:
            return {}
        return within(mapping(found), "Items")

    def delete_variable(self, path: str) -> None:
        """Take a Variable away; one that is not there is no error."""
        self._plain(
            f"delete variable {path}",
            lambda at: at.variable.delete_variable(path, namespace=self.namespace),
        )

    def has_acl(self) -> bool:
        """Whether this Nomad asks who somebody is."""
        found = mapping(self._plain("read its own token", lambda at: at.acl.get_self_token()))
        return text(found, "AccessorID") != "acls-disabled"

    def jobs(self, prefix: str, *, dead: bool) -> tuple[int, list[Document]]:
        """Jobs whose id begins so, with their meta; `dead` ones or the others. First, the index that they are of."""
        found = 'Status == "dead"' if dead else 'Status != "dead"'
        pages = list(self._pages("list jobs", "/v1/jobs", {"prefix": prefix, "meta": "true", "filter": found}))
        return pages[0].index, [row for page in pages for row in page.rows]

    def open_allocations(self, prefix: str) -> Iterator[Document]:
        """Allocations that have not ended, of jobs whose id begins so."""
        ended = " and ".join(f'ClientStatus != "{status}"' for status in ("complete", "failed", "lost"))
        found = {"task_states": "true", "filter": f'JobID matches "^{prefix}" and {ended}'}
        return self._rows("list allocations", "/v1/allocations", found)

    def blocked_evaluations(self, prefix: str) -> Iterator[Document]:
        """Evaluations that wait for room, of jobs whose id begins so."""
        found = {"filter": f'Status == "blocked" and JobID matches "^{prefix}"'}
        return self._rows("list evaluations", "/v1/evaluations", found)

    def nodes(self) -> Iterator[Document]:
        """Every node, without its meta."""
        return self._rows("list nodes", "/v1/nodes", {})

    def variables(self, prefix: str) -> Iterator[str]:
        """Paths of Variables that begin so."""
        return (text(row, "Path") for row in self._rows("list variables", "/v1/vars", {"prefix": prefix}))

    def log_tail(self, allocation_id: str, task: str, limit: int) -> str:
        """The end of what a task wrote on stderr."""
        params = {"task": task, "type": "stderr", "plain": "true", "origin": "end", "offset": str(limit)}
        path = f"/v1/client/fs/logs/{quote(allocation_id, safe='')}"
        answer = self._get(f"read the log of {allocation_id}", path, params)
        return plain(answer.content.decode("utf-8", "replace"), limit).strip()

    @contextmanager
    def events(self) -> Iterator[Iterator[Document]]:
        """The stream of events, open when the block begins; an empty document is a heartbeat."""
        what, path = "follow its events", "/v1/event/stream"
        timeout = httpx.Timeout(SILENT_STREAM_SECONDS, connect=CONNECT_SECONDS)
        with self._stream(what, path, {"topic": list(TOPICS)}, timeout) as response:
            yield _lines(response)

    @contextmanager
    def log_frames(self, allocation_id: str, task: str, params: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """What a task wrote, as frames in JSON, to where its log ends now; `params` say which part."""
        what, path = f"read the log of {allocation_id}", f"/v1/client/fs/logs/{quote(allocation_id, safe='')}"
        with self._stream(what, path, {"task": task, "follow": "false", **params}) as response:
            yield response.iter_bytes()

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()
        for endpoints in self._opened:
            endpoints.close()

    @contextmanager
    def _stream(
        self, what: str, path: str, params: Mapping[str, str | list[str]], timeout: httpx.Timeout | None = None
    ) -> Iterator[httpx.Response]:
        """An answer whose body is read in the block."""
        asked, patience = {**self._params, **params}, timeout or self._http.timeout

        def opened(address: str) -> httpx.Response:
            request = self._http.build_request("GET", address + path, params=asked, timeout=patience)
            response = self._http.send(request, stream=True)
            if response.status_code != HTTPStatus.OK:
                try:
                    raise refusal(what, response.status_code, _head(response))
                finally:
                    response.close()
            return response

        response = self._anywhere(what, opened)
        try:
            yield response
        except httpx.HTTPError as error:
            raise unreachable(what, error) from error
        finally:
            response.close()

    def _rows(self, what: str, path: str, params: Mapping[str, str]) -> Iterator[Document]:
        return (row for page in self._pages(what, path, params) for row in page.rows)

    def _pages(self, what: str, path: str, params: Mapping[str, str]) -> Iterator[_Page]:
        token = ""
        for _ in range(MAX_PAGES):
            page = self._get(what, path, {**params, "per_page": str(PAGE), **({"next_token": token} if token else {})})
            yield _Page(page.index, list(rows(_decode(what, page.content))))
            token = page.next_token
            if not token:
                return
        raise ExecutorError(f"Nomad has more than {MAX_PAGES * PAGE} rows to {what}; collect its garbage")

    def _get(self, what: str, path: str, params: Mapping[str, str]) -> _Answer:
        return self._send(what, "GET", path, params)

    def _send(self, what: str, method: str, path: str, params: Mapping[str, str], body: object = None) -> _Answer:
        def ask(address: str) -> _Answer:
            asked = {**self._params, **params}
            with self._http.stream(method, address + path, params=asked, json=body) as response:
                content, headers = _head(response), response.headers
                if response.status_code != HTTPStatus.OK:
                    raise refusal(what, response.status_code, content)
            index = str(headers.get("X-Nomad-Index", ""))
            return _Answer(content, int(index) if index.isdecimal() else 0, str(headers.get("X-Nomad-NextToken", "")))

        return self._anywhere(what, ask)

    def _plain(self, what: str, call: Callable[[Endpoints], object]) -> object:
        """Make one call of python-nomad."""

        def ask(address: str) -> object:
            with our_errors(what):
                return call(self._endpoints(address))

        return self._anywhere(what, ask)

    def _endpoints(self, address: str) -> Endpoints:
        """Those of this thread: a session of requests is for one."""
        found: dict[str, Endpoints] | None = getattr(self._local, "endpoints", None)
        if found is None:
            found = self._local.endpoints = {}
        if address not in found:
            found[address] = Endpoints(self._settings, address)
            self._opened.append(found[address])
        return found[address]

    def _anywhere(self, what: str, ask: Callable[[str], T]) -> T:
        """Ask the address that answered last, then the others; every call of ours may be made twice."""
        problem = ExecutorUnavailableError(f"Nomad could not be asked to {what}: no address answered")
        for turn in range(len(self._addresses)):
            number = (self._preferred + turn) % len(self._addresses)
            try:
                answer = ask(self._addresses[number])
            except NomadBusyError:
                raise
            except ExecutorUnavailableError as error:
                problem = error
                continue
            except httpx.HTTPError as error:
                problem = unreachable(what, error)
                continue
            self._preferred = number
            return answer
        raise problem


def _tls(settings: NomadSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"nomad.ca_file, cert_file or key_file cannot be used: {error}") from error
    return context


def _head(response: httpx.Response) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > MAX_ANSWER:
            raise ExecutorError(f"an answer of Nomad is larger than {MAX_ANSWER} bytes, and was not read")
    return bytes(content)


def _lines(response: httpx.Response) -> Iterator[Document]:
    """The documents of a stream, one a line."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE:
            raise ExecutorError(f"an event of Nomad is longer than {MAX_LINE} bytes")
        for line in lines:
            if line.strip():
                yield mapping(_decode("follow its events", line))


def _decode(what: str, content: bytes) -> object:
    try:
        value: object = json.loads(content)
    except ValueError as error:
        raise ExecutorUnavailableError(f"Nomad was asked to {what}, and did not answer JSON: {error}") from error
    return value
