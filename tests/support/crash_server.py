"""`albatros serve` that kills itself with SIGKILL at one point, named by ALBATROS_CRASH_AT; all else is the product.

A point is a row that another connection sees committed, an event of publishing, or a post that the forge has taken.
"""

import os
import signal
import sys
from functools import partial

from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from albatros import bootstrap, cli
from albatros.domain.states import BuildState
from albatros.forges.base import CommitStatus
from albatros.forges.git import GitForge
from albatros.images.publish import BlobUploaded, IndexPut, PublishEvent, TagMoved

POINT = "ALBATROS_CRASH_AT"
BLOBS = "ALBATROS_CRASH_BLOBS"
"""How many blobs all registries together are sent: the last of them is the point `last-blob`."""
_BUILD_ATTEMPT = "SELECT 1 FROM attempts JOIN jobs ON jobs.id = attempts.job_id WHERE jobs.kind = 'build' AND "
ROWS = {
    "delivery": "SELECT 1 FROM deliveries JOIN builds ON builds.delivery_id = deliveries.id",
    "plan": "SELECT 1 FROM jobs WHERE kind = 'build'",
    "intent": f"{_BUILD_ATTEMPT} attempts.state = 'submitting'",
    "claim": f"{_BUILD_ATTEMPT} attempts.state = 'claimed'",
    "output": f"{_BUILD_ATTEMPT} attempts.uploaded_bytes > 0 AND attempts.state = 'claimed'",
    "result": f"{_BUILD_ATTEMPT} attempts.state = 'succeeded'",
    "index-assembled": "SELECT 1 FROM images",
}
EVENTS = ("last-blob", "index-before-tag", "tag-before-row")
STATUS = "status-before-row"
POINTS = (*ROWS, *EVENTS, STATUS)


def die() -> None:
    """End as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_row(query: str) -> None:
    """Die as soon as a commit has made a row that this query finds."""

    @event.listens_for(Session, "after_commit")
    def look(session: Session) -> None:
        engine = session.get_bind()
        assert isinstance(engine, Engine)
        # A connection of its own sees what is committed, and nothing else.
        with engine.connect() as connection:
            if connection.execute(text(query)).first() is not None:
                die()


class Observer:
    """Hears what the publisher does, and dies at its point."""

    def __init__(self, point: str) -> None:
        self._point = point
        self._blobs_left = int(os.environ.get(BLOBS, "0"))

    def __call__(self, event: PublishEvent) -> None:
        match event:
            case BlobUploaded() if self._point == "last-blob":
                self._blobs_left -= 1
                if self._blobs_left == 0:
                    die()
            case IndexPut() if self._point == "index-before-tag":
                die()
            case TagMoved(tag="latest") if self._point == "tag-before-row":
                die()
            case _:
                return


def die_at_status() -> None:
    """Die when the forge has taken the success of a Build, which no row knows yet."""
    post = GitForge.post_status

    def post_and_die(self: GitForge, owner: str, name: str, status: CommitStatus) -> None:
        post(self, owner, name, status)
        if status.context == "albatros" and status.state is BuildState.SUCCEEDED:
            die()

    GitForge.post_status = post_and_die  # type: ignore[method-assign]  # this process is the test's own


def main() -> int:
    point = os.environ[POINT]
    if point in ROWS:
        die_at_row(ROWS[point])
    elif point == STATUS:
        die_at_status()
    else:
        assert point in EVENTS, point
    bootstrap.Server = partial(bootstrap.Server, observe=Observer(point))  # type: ignore[misc,assignment]  # as above
    return cli.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
