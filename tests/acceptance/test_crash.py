"""SIGKILL of the server at each point of the line: started again it goes on, and everything is there exactly once.

Each part of recovery has a point that fails without it: held pushes (`last-blob` to `tag-before-row`), held statuses
(`status-before-row`), repeated starts (`intent`), runners that live on (`claim`, `output`).
"""

import signal
from collections import Counter

import pytest

from tests.services.registry import RegistryServer
from tests.support.bare_repo import BareRepo
from tests.support.crash_server import BLOBS, POINT, POINTS
from tests.support.flakes import AMD64, ARMV6, elf, hello
from tests.support.line import Line
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")
MACHINES = (AMD64, ARMV6)
REGISTRIES = 2
BLOBS_OF_IMAGE = 2 * len(MACHINES)
CRASHING = ("-m", "tests.support.crash_server")
SAYS = {
    "delivery": "1 open builds go on",
    "claim": "running attempts adopted",
    "output": "running attempts adopted",
    "index-before-tag": "pushes are due again",
    "last-blob": "pushes are due again",
    "tag-before-row": "pushes are due again",
    "status-before-row": "commit statuses are due again",
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_it_goes_on_and_does_nothing_twice(line: Line, hub: RegistryServer, point: str) -> None:
    name = f"killed-at-{point}"
    repo = line.repo(name)
    blobs = str(BLOBS_OF_IMAGE * REGISTRIES)
    line.server.start(CRASHING, {POINT: point, BLOBS: blobs})
    commit = repo.push_files(hello(name, MACHINES))
    assert line.server.wait() == -signal.SIGKILL
    check_where_it_died(line, repo, commit, point)

    line.server.start()
    assert SAYS.get(point, "1 open builds go on") in line.server.log
    line.wait_green(repo, commit)
    check_rows(line, commit)
    check_registries(line, hub, name, commit)
    assert Counter((s.context, s.state) for s in repo.statuses(commit)) == {
        ("albatros", "success"): 1,
        ("albatros/hello@static", "success"): 1,
        ("albatros/hello@hub", "success"): 1,
    }
    assert line.server.stop() == 0


def check_where_it_died(line: Line, repo: BareRepo, commit: str, point: str) -> None:
    """What the rows, the registries and the forge show is that the server died where it should."""
    ((builds, images),) = line.sql("SELECT (SELECT count(*) FROM builds), (SELECT count(*) FROM images)")
    open_publications = line.sql("SELECT id FROM publications WHERE state IN ('pending', 'pushing')")
    assert builds == 1
    published = {"index-assembled", "last-blob", "index-before-tag", "tag-before-row", "status-before-row"}
    assert images == (1 if point in published else 0)
    tagged = [remote.has("latest") for remote in line.remotes(repo.full_name.partition("/")[2])]
    status = repo.status(commit)
    match point:
        case "status-before-row":
            assert status is not None
            assert status.state == "success"
            assert line.sql("SELECT 1 FROM status_reports WHERE context = 'albatros' AND sent < version")
        case "tag-before-row":
            assert any(tagged)
            assert open_publications
        case "last-blob" | "index-before-tag":
            assert not all(tagged)
            assert open_publications
        case _:
            assert not any(tagged)


def check_rows(line: Line, commit: str) -> None:
    """One Build, one Image, one Publication for each registry and tag, and nothing left open."""
    nothing_due = "SELECT count(*) = 0 FROM status_reports WHERE sent < version"
    eventually(lambda: line.sql(nothing_due)[0][0], lambda: line.server.log)
    assert line.sql('SELECT state, "commit" FROM builds') == [("succeeded", commit)]
    assert line.sql("SELECT count(*) FROM images") == [(1,)]
    publications = Counter(line.sql("SELECT registry, tag, state FROM publications"))
    tags = (commit, "main", "latest")
    assert publications == {(registry, tag, "published"): 1 for registry in ("static", "hub") for tag in tags}
    assert Counter(line.sql("SELECT kind, state FROM jobs")) == {
        ("evaluation", "succeeded"): 1,
        ("build", "succeeded"): len(MACHINES),
    }
    # Runners outlive the server, so no Job is tried again.
    assert Counter(line.sql("SELECT state FROM attempts")) == {("succeeded",): 1 + len(MACHINES)}
    ((digest,),) = line.sql("SELECT digest FROM images")
    assert set(line.sql("SELECT digest FROM tag_heads")) == {(digest,)}


def check_registries(line: Line, hub: RegistryServer, name: str, commit: str) -> None:
    """One index under every tag, equal at both, and no manifest that belongs to nothing."""
    static, other = line.remotes(name)
    digest = static.digest(commit)
    for remote in (static, other):
        assert remote.tags() == {commit, "main", "latest"}
        assert {remote.digest(tag) for tag in (commit, "main", "latest")} == {digest}
        for machine in MACHINES:
            assert remote.pull("main", machine) == elf(machine, name)
    kept = hub.root / "docker/registry/v2/repositories/team" / name / "_manifests/revisions/sha256"
    assert len(list(kept.iterdir())) == len(MACHINES) + 1
    manifests = line.paths.static / "v2" / name / "manifests"
    assert len(list(manifests.glob("sha256:*"))) == len(MACHINES) + 1
