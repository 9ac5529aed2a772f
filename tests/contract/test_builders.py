"""Every builder, and the fake one: a dispatch runs once, is followed by its state and log, and can be stopped."""

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from albatros.domain.states import Reason
from albatros.executors.builder_base import Builder, ChildState, LogPlace, Phase, Stream
from albatros.executors.nomad_builder import NomadBuilder
from albatros.settings import NomadSettings
from tests.support.fake_builder import FakeBuilder
from tests.support.nomad_jobs import JOB_ID, nomad_of, register
from tests.support.nomad_worlds import KINDS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAID = f"url https://git.example.org/alba/hello.git\ncommit {COMMIT}\nbranch main\n"
PATIENCE = 60


def meta(flavor: str) -> Mapping[str, str]:
    return {
        "REPO_URL": "https://git.example.org/alba/hello.git",
        "COMMIT": COMMIT,
        "BRANCH": "main",
        "FLAVOR": flavor,
    }


@dataclass
class ActingFake(FakeBuilder):
    """Does at once what the job of the others does."""

    def dispatch(self, attempt_id: str, meta: Mapping[str, str]) -> str:
        name = super().dispatch(attempt_id, meta)
        child = self.children[name]
        if child.state.allocation:
            return name
        child.begin(allocation=f"of-{attempt_id}")
        child.say(SAID)
        child.say("a warning\n", Stream.STDERR)
        if meta["FLAVOR"] == "fails":
            child.end(Reason.BUILD_FAILED, "its task ended on node-1 with exit code 7")
        elif meta["FLAVOR"] != "sleeps":
            child.say("done\n")
            child.end()
        return name


@pytest.fixture(params=["fake", *KINDS])
def builder(request: pytest.FixtureRequest) -> Iterator[Builder]:
    if request.param == "fake":
        yield ActingFake()
        return
    with nomad_of(request) as nomad:
        register(nomad)
        opened = NomadBuilder(NomadSettings(addresses=(nomad.url,), without_acl=True), JOB_ID)
        yield opened
        opened.close()


def attempt_id() -> str:
    return str(uuid.uuid4())


def until(builder: Builder, child: str, phase: Phase) -> ChildState:
    deadline = time.monotonic() + PATIENCE
    while (state := builder.look(child)).phase is not phase:
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    return state


def whole(builder: Builder, allocation: str, stream: Stream, most: int = 1 << 20) -> str:
    """A log, read piece by piece."""
    place, data = LogPlace(), b""
    while (read := builder.read_log(allocation, stream, place, most)).data:
        assert len(read.data) <= most
        assert not read.lost
        data += read.data
        place = LogPlace(read.place.file, read.place.offset + len(read.data))
    return data.decode()


def test_one_that_can_be_dispatched_to_passes_its_check(builder: Builder) -> None:
    builder.check()


def test_it_is_told_what_to_build_and_succeeds(builder: Builder) -> None:
    child = builder.dispatch(attempt_id(), meta(""))
    state = until(builder, child, Phase.ENDED)
    assert (state.reason, state.detail) == (None, "")
    assert state.host
    assert (state.placement["allocation"], state.placement["node"]) == (state.allocation, state.host)
    assert whole(builder, state.allocation, Stream.STDOUT) == f"{SAID}done\n"
    assert whole(builder, state.allocation, Stream.STDERR) == "a warning\n"


def test_a_repeated_dispatch_runs_once(builder: Builder) -> None:
    token = attempt_id()
    first = builder.dispatch(token, meta("sleeps"))
    assert builder.dispatch(token, meta("sleeps")) == first
    assert [child for child, attempt in builder.running().items() if attempt == token] == [first]
    builder.stop(first)


def test_an_exit_code_is_a_failure_of_the_build(builder: Builder) -> None:
    state = until(builder, builder.dispatch(attempt_id(), meta("fails")), Phase.ENDED)
    assert state.reason is Reason.BUILD_FAILED
    assert state.detail.endswith("exit code 7")


def test_a_log_is_read_from_any_place(builder: Builder) -> None:
    state = until(builder, builder.dispatch(attempt_id(), meta("")), Phase.ENDED)
    assert whole(builder, state.allocation, Stream.STDOUT, most=7) == f"{SAID}done\n"
    assert builder.read_log_end(state.allocation, Stream.STDOUT, 6) == b"\ndone\n"


def test_a_stopped_one_ends_and_is_not_among_the_running(builder: Builder) -> None:
    token = attempt_id()
    child = builder.dispatch(token, meta("sleeps"))
    until(builder, child, Phase.RUNNING)
    assert builder.running()[child] == token
    builder.stop(child)
    state = until(builder, child, Phase.ENDED)
    assert state.reason is Reason.PREEMPTED
    assert child not in builder.running()
    builder.stop(child)


def test_nobody_knows_one_that_was_never_there(builder: Builder) -> None:
    assert builder.look(f"{JOB_ID}/dispatch-alb-{attempt_id()}-1-0").phase is Phase.GONE
    builder.stop(f"{JOB_ID}/dispatch-alb-{attempt_id()}-1-0")
