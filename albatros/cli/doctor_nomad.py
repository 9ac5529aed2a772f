"""What `albatros doctor` says of Nomad: whether it answers, what our token may do, and what its nodes build."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from albatros.cli.doctor_forges import Finding, Verdict
from albatros.errors import AlbatrosError, ConfigError, ExecutorError

if TYPE_CHECKING:
    from albatros.executors.nomad_api import NomadApi
    from albatros.settings import NomadSettings

SUBJECT = "nomad"


def check(settings: NomadSettings) -> Iterator[Finding]:
    """Try what the executor will do, one thing after the other; a Nomad that does not answer is asked nothing more."""
    from albatros.executors.nomad_api import NomadApi

    nomad = NomadApi(settings)
    try:
        first = _try(lambda: _acl(nomad, settings))
        yield first
        if first.verdict is Verdict.OK:
            yield _try(lambda: _variable(nomad))
            found = [_try(lambda: _jobs(nomad)), *_nodes(nomad, settings)]
            yield from found
            # Nomad refuses a stream by silence: it is tried when what it takes has been granted.
            if all(one.verdict is not Verdict.MISSING for one in found):
                yield _try(lambda: _events(nomad))
    finally:
        nomad.close()


def _acl(nomad: NomadApi, settings: NomadSettings) -> str:
    if nomad.has_acl():
        return f"answers at {settings.addresses[0]}, with ACLs"
    if not settings.without_acl:
        raise ConfigError("has its ACLs off; turn them on, or set nomad.without_acl = true")
    return f"answers at {settings.addresses[0]}, without ACLs, as nomad.without_acl allows"


def _variable(nomad: NomadApi) -> str:
    """Write a Variable where those of Attempts lie, find it, and take it away."""
    path = f"nomad/jobs/alb-{uuid.uuid4()}"
    nomad.put_variable(path, {"token": "doctor"})
    found = path in nomad.variables(path) and nomad.variable(path) != {}
    nomad.delete_variable(path)
    if not found:
        raise ExecutorError("does not list and show the variable that was just written; give our token both rights")
    return "our token may write, list, read and delete variables under nomad/jobs/"


def _events(nomad: NomadApi) -> str:
    with nomad.events() as stream:
        if next(stream, None) is None:
            raise ExecutorError("ends the stream of events at once; give our token the rights that it needs")
    return "our token may follow events"


def _jobs(nomad: NomadApi) -> str:
    """Reading asks for `list-jobs` and `read-job`; stopping what is not there asks for `submit-job`."""
    from albatros.executors.nomad_job import PREFIX

    _, found = nomad.jobs(PREFIX, dead=False)
    nomad.deregister(f"{PREFIX}{uuid.uuid4()}")
    return f"our token may list and stop jobs; {len(found)} of Albatros wait or run"


def _nodes(nomad: NomadApi, settings: NomadSettings) -> Iterator[Finding]:
    from albatros.executors.nomad_json import text
    from albatros.executors.nomad_words import read_node

    try:
        nodes = [read_node(nomad.node(text(row, "ID"))) for row in nomad.nodes()]
    except AlbatrosError as error:
        yield Finding(Verdict.MISSING, SUBJECT, str(error))
        return
    ready = [node for node in nodes if node.ready]
    if not ready:
        yield Finding(Verdict.MISSING, SUBJECT, f"{len(nodes)} nodes, and none takes work; start a client")
        return
    systems = sorted({system for node in ready for system in node.systems})
    if settings.place_by == "meta" and not systems:
        text_ = "no node says what it builds; give those with Nix the meta nix_system, such as x86_64-linux"
        yield Finding(Verdict.MISSING, SUBJECT, text_)
        return
    count = f"{len(ready)} nodes take" if len(ready) > 1 else "1 node takes"
    yield Finding(Verdict.OK, SUBJECT, f"{count} work: {', '.join(systems) or 'placed by processor'}")
    if not any(node.sandbox for node in ready):
        yield Finding(Verdict.NOTE, SUBJECT, "no node has nix_sandbox = true in its meta: strangers are refused")


def _try(ask: Callable[[], str]) -> Finding:
    try:
        return Finding(Verdict.OK, SUBJECT, ask())
    except AlbatrosError as error:
        return Finding(Verdict.MISSING, SUBJECT, str(error))
