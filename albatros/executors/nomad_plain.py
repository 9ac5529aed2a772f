"""python-nomad 2.1.0, with bounded answers and our errors. Its package has no types: they are stated here.

Its endpoints are built one by one, because its `Nomad` takes what it is not told from the environment; and it verifies
no certificate unless it is asked to.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import requests
from nomad import api  # type: ignore[import-untyped] # the package has none
from nomad.api import exceptions  # type: ignore[import-untyped] # as above

from albatros.errors import ExecutorError
from albatros.executors.nomad_errors import refusal, unreachable
from albatros.executors.nomad_json import Document
from albatros.settings import NomadSettings

CONNECT_SECONDS, READ_SECONDS = 3.0, 15.0
MAX_ANSWER = 32 << 20


class _Jobs(Protocol):
    def register_job(self, job: Document) -> object: ...


class _Job(Protocol):
    def get_job(self, id_: str) -> object: ...

    def get_allocations(self, id_: str, all_: bool) -> object: ...

    def get_evaluations(self, id_: str) -> object: ...

    def deregister_job(self, id_: str, *, purge: bool) -> object: ...


class _Node(Protocol):
    def get_node(self, id_: str) -> object: ...


class _Variable(Protocol):
    def create_variable(self, var_path: str, payload: Document, namespace: str) -> object: ...

    def get_variable(self, var_path: str, namespace: str) -> object: ...

    def delete_variable(self, var_path: str, namespace: str) -> object: ...


class _Acl(Protocol):
    def get_self_token(self) -> object: ...


class _BoundedSession(requests.Session):
    """Reads no answer that is larger than `MAX_ANSWER`, and nothing about Nomad from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.hooks["response"].append(_read_bounded)

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        """Make a request whose body is read by a hook."""
        send = cast("Callable[..., requests.Response]", super().request)
        return send(*args, **{**kwargs, "stream": True})


def _read_bounded(response: requests.Response, **_: object) -> requests.Response:
    content = bytearray()
    with response:
        for piece in response.iter_content(1 << 16):
            content += piece
            if len(content) > MAX_ANSWER:
                raise requests.exceptions.ContentDecodingError(f"the answer is larger than {MAX_ANSWER} bytes")
    # Where requests itself leaves a body that it has read.
    response._content = bytes(content)  # noqa: SLF001 - it has no other way
    return response


class Endpoints:
    """The endpoints of python-nomad at one address; for one thread."""

    def __init__(self, settings: NomadSettings, address: str) -> None:
        self._session = _BoundedSession()
        token = settings.token.get_secret_value()
        options = {
            "address": address,
            "namespace": settings.namespace,
            "token": token or None,
            "timeout": (CONNECT_SECONDS, READ_SECONDS),
            "verify": settings.ca_file or _system_certificates(),
            "cert": (settings.cert_file, settings.key_file) if settings.cert_file else (),
            "region": settings.region or None,
            "session": self._session,
        }
        self.jobs = cast("_Jobs", api.Jobs(**options))
        self.job = cast("_Job", api.Job(**options))
        self.node = cast("_Node", api.Node(**options))
        self.variable = cast("_Variable", api.Variable(**options))
        self.acl = cast("_Acl", api.Acl(**options))

    def close(self) -> None:
        """Hang up."""
        self._session.close()


@contextmanager
def our_errors(what: str) -> Iterator[None]:
    """Turn what python-nomad raises into our errors; `what` is what Nomad was asked to do."""
    try:
        yield
    except exceptions.BaseNomadException as error:
        raise _explained(what, error.nomad_resp) from error
    except (requests.RequestException, ValueError) as error:
        raise unreachable(what, error) from error


def _explained(what: str, answer: object) -> ExecutorError:
    """What python-nomad met: an answer of Nomad, or an exception of requests."""
    if isinstance(answer, requests.Response):
        return refusal(what, answer.status_code, answer.content)
    return unreachable(what, answer)


def _system_certificates() -> str | bool:
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True
