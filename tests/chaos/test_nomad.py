"""Whatever breaks between Albatros, Nomad and a runner: nothing is lost, and nothing is done twice.

Each test breaks one thing while a commit is on its way, and `ends_well` then holds the rows, the registry and Nomad's
own answers against what must be so.
"""

import signal

import pytest

from albatros.domain.states import INFRASTRUCTURE_REASONS
from tests.support.chaos import OPEN, Chaos
from tests.support.nomad_proxy import Fault
from tests.support.server_process import eventually

pytestmark = pytest.mark.timeout(900)  # each wait in it has an end of its own, and says what did not come
REGISTER, TOKEN = ("POST", r"^/v1/jobs(\?|$)"), ("PUT", "^/v1/var/")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (REGISTER, Fault.LOST),
        (REGISTER, Fault.REPEATED),
        (REGISTER, Fault.REFUSED),
        (REGISTER, Fault.BUSY),
        (REGISTER, Fault.LATE),
        (TOKEN, Fault.LOST),
        (TOKEN, Fault.REPEATED),
        (("GET", r"^/v1/jobs\?"), Fault.LOST),
        (("GET", r"^/v1/nodes"), Fault.BUSY),
        (("DELETE", "^/v1/var/"), Fault.LOST),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else f"{value[0]}-{value[1].split('/')[2][:4]}",
)
def test_an_answer_of_nomad_is_lost_late_or_repeated(chaos: Chaos, call: tuple[str, str], fault: Fault) -> None:
    rule = chaos.proxy.add(*call, fault, times=2)
    chaos.start()
    chaos.push()
    chaos.ends_well()
    assert rule.seen == 2
    assert {state for _, _, state, _ in chaos.attempts()} == {"succeeded"}


@pytest.mark.parametrize("point", ["delivery", "intent", "registered", "claim", "output", "reported", "result", "plan"])
def test_the_server_is_killed(chaos: Chaos, point: str) -> None:
    """A node that fetches the runner while the server is dead cannot: that try is the infrastructure's fault."""
    chaos.start(f"die:{point}")
    chaos.push()
    assert chaos.line.server.wait() == -signal.SIGKILL
    chaos.start()
    chaos.ends_well()
    failed = {reason for _, _, state, reason in chaos.attempts() if state != "succeeded"}
    assert failed <= (INFRASTRUCTURE_REASONS if chaos.runners is None else frozenset())


def test_nomads_server_is_restarted(chaos: Chaos) -> None:
    chaos.start()
    chaos.push(held=True)
    chaos.building()
    chaos.world.restart_server()
    chaos.release()
    chaos.ends_well()
    assert {state for _, _, state, _ in chaos.attempts()} == {"succeeded"}


def test_nomads_client_stops_and_its_runner_runs_on(chaos: Chaos) -> None:
    """The runner is alive and says so: what Nomad believes of its node is no reason to begin again."""
    chaos.start()
    chaos.push(held=True)
    _, alloc = chaos.building()
    chaos.world.lose(alloc["NodeName"])
    chaos.talk.until_state(str(alloc["JobID"]), "unknown")
    chaos.release()
    chaos.line.wait_green(chaos.repo, chaos.commit)
    chaos.world.bring_back(alloc["NodeName"])
    chaos.ends_well()
    assert {state for _, _, state, _ in chaos.attempts()} == {"succeeded"}


def test_nomads_client_reboots_and_runs_the_task_again_in_the_same_allocation(chaos: Chaos) -> None:
    """The second run of an allocation is turned away, which ends it; Nomad says so, and the Job is tried again."""
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    chaos.world.reboot(alloc["NodeName"])
    _lost_and_tried_again(chaos, attempt)


@pytest.mark.parametrize("fault", [None, Fault.LOST, Fault.REFUSED, Fault.REPEATED])
def test_a_machine_is_gone_for_good(chaos: Chaos, fault: Fault | None) -> None:
    """Its job is stopped, so that it does not begin when the machine comes back after all."""
    chaos.shorten_lease()
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    rule = chaos.proxy.add("DELETE", f"^/v1/job/{alloc['JobID']}", fault) if fault else None
    chaos.world.power_off(alloc["NodeName"])
    _lost_and_tried_again(chaos, attempt)
    assert rule is None or rule.seen == 1


def test_an_allocation_is_restarted_by_hand(chaos: Chaos) -> None:
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    assert chaos.talk.say("PUT", f"/v1/client/allocation/{alloc['ID']}/restart", {}).response["status"] == 200
    _lost_and_tried_again(chaos, attempt)


def test_a_node_is_drained(chaos: Chaos) -> None:
    """Nomad stops a batch job at the deadline of a drain, and does not place it again: we do."""
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    drain = {"DrainSpec": {"Deadline": 500_000_000, "IgnoreSystemJobs": False}}
    assert chaos.talk.say("PUT", f"/v1/node/{alloc['NodeID']}/drain", drain).response["status"] == 200
    _lost_and_tried_again(chaos, attempt)


def test_a_job_is_purged_while_it_runs(chaos: Chaos) -> None:
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    assert chaos.talk.say("DELETE", f"/v1/job/{alloc['JobID']}?purge=true").response["status"] == 200
    _lost_and_tried_again(chaos, attempt)


def test_a_job_is_purged_and_collected_before_it_was_seen(chaos: Chaos) -> None:
    """While the server is dead, its job ends and goes: nobody can tell how, so it is tried again."""
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    chaos.line.server.kill()
    chaos.talk.say("DELETE", f"/v1/job/{alloc['JobID']}?purge=true")
    chaos.talk.say("PUT", "/v1/system/gc")
    chaos.talk.until(lambda: chaos.talk.say("GET", f"/v1/job/{alloc['JobID']}").response["status"] == 404)
    chaos.start()
    _lost_and_tried_again(chaos, attempt)


def test_the_stream_of_events_says_nothing(chaos: Chaos) -> None:
    """A stream that is open and dead: the runners' own words are enough, and a lost one is told by its lease."""
    chaos.proxy.silent = True
    chaos.shorten_lease()
    chaos.start()
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    chaos.world.power_off(alloc["NodeName"])
    _lost_and_tried_again(chaos, attempt)


def test_nomads_clock_is_an_hour_ahead(simulated: Chaos) -> None:
    simulated.start()
    simulated.push(held=True)
    simulated.building()
    simulated.sim.clock.advance(3600)
    simulated.release()
    simulated.ends_well()
    assert {state for _, _, state, _ in simulated.attempts()} == {"succeeded"}


def test_the_servers_clock_is_an_hour_ahead_after_a_restart(chaos: Chaos) -> None:
    """Every lease seems to be over. Whoever loses his Attempt by that is heard no more, and the Job is tried again."""
    chaos.start()
    chaos.push(held=True)
    chaos.building()
    chaos.line.server.kill()
    chaos.start("ahead:3600")
    chaos.release()
    chaos.ends_well()


def test_without_the_fence_two_runners_get_one_order(chaos: Chaos) -> None:
    """The suite notices what the fence is for: a server without it gives the order of an Attempt twice."""
    chaos.start("unfenced")
    chaos.push(held=True)
    attempt, alloc = chaos.building()
    chaos.world.reboot(alloc["NodeName"])
    eventually(chaos.orders_given_twice, chaos.tell)
    assert chaos.orders_given_twice() == {attempt: 2}
    chaos.release()


def _lost_and_tried_again(chaos: Chaos, attempt: str) -> None:
    """The Attempt is given up, and another one ends well; a busy machine may lose one more by a short lease."""
    closed = f"SELECT 1 FROM attempts WHERE id = '{attempt}' AND NOT {OPEN}"
    eventually(lambda: chaos.sql(closed), chaos.tell)
    chaos.release()
    chaos.ends_well()
    *lost, last = [(state, reason) for kind, _, state, reason in chaos.attempts() if kind == "build"]
    assert lost
    assert {state for state, _ in lost} <= {"lost", "failed"}
    assert {reason for _, reason in lost} <= INFRASTRUCTURE_REASONS
    assert last == ("succeeded", None)
