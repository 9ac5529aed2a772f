"""A parameterized job that clones nothing: it says what it was told, and does what FLAVOR or the repo asks for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.services.nomad import NomadServer
from tests.support.nomad_worlds import nomad_world

JOB_ID = "build"
SCRIPT = """
echo "url $NOMAD_META_REPO_URL"
echo "commit $NOMAD_META_COMMIT"
echo "branch $NOMAD_META_BRANCH"
echo "a warning" >&2
what=$NOMAD_META_FLAVOR
[ "$what" ] || what=$(basename "$NOMAD_META_REPO_URL" .git)
case "$what" in
  fails) exit 7 ;;
  sleeps) exec sleep 600 ;;
  slow) i=0; while [ $i -lt 40 ]; do echo "line $i"; echo "warning $i" >&2; i=$((i+1)); sleep 0.25; done ;;
  long) seq -f "line %08.0f ......................................................................." 1 40000 ;;
esac
echo done
"""


def builder_job(**changes: object) -> Mapping[str, object]:
    """The job as Nomad takes it; two log files of 1 MB for each output."""
    job = {
        "ID": JOB_ID,
        "Name": JOB_ID,
        "Type": "batch",
        "Datacenters": ["*"],
        "ParameterizedJob": {
            "Payload": "forbidden",
            "MetaRequired": ["REPO_URL", "COMMIT", "BRANCH"],
            "MetaOptional": ["FLAVOR"],
        },
        "TaskGroups": [
            {
                "Name": "runner",
                "Count": 1,
                "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
                "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
                "Tasks": [
                    {
                        "Name": "executor",
                        "Driver": "raw_exec",
                        "Config": {"command": "/bin/sh", "args": ["-c", SCRIPT]},
                        "LogConfig": {"MaxFiles": 2, "MaxFileSizeMB": 1},
                        "Resources": {"CPU": 20, "MemoryMB": 16},
                    }
                ],
            }
        ],
    }
    return {"Job": job | changes}


def register(nomad: NomadServer, **changes: object) -> None:
    """Make the job, or change it."""
    status, answer = nomad.call("POST", "/v1/jobs", builder_job(**changes))
    assert status == 200, answer


@contextmanager
def nomad_of(request: pytest.FixtureRequest) -> Iterator[NomadServer]:
    """The Nomad that a fixture's parameter asks for: a simulated one of its own, or the session's dev agent."""
    if request.param == "real":
        yield request.getfixturevalue("nomad_dev")
        return
    with nomad_world("simulated", clients=1) as world:
        yield NomadServer(world.url, "", {})
