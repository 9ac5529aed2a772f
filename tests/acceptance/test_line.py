"""A push becomes one image on two registries, and the commit turns green: judged by git, skopeo and the registries."""

import json
import subprocess
import sys
from typing import cast

from tests.services.process import free_port
from tests.services.registry import RegistryServer, start_registry
from tests.support.flakes import MACHINES, elf, hello, wait_for
from tests.support.line import Line, list_of, make_line
from tests.support.published import check_published
from tests.support.pulls import Remote
from tests.support.runner import FLAKES
from tests.support.server_process import eventually
from tests.tools import ROOT, needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")


def check_statuses(line: Line, name: str, commit: str) -> None:
    """The notes of the bare repo say success, once for the Build and once for each registry."""
    states = {"albatros": "success", "albatros/hello@static": "success", "albatros/hello@hub": "success"}
    line.wait_statuses(line.repo(name), commit, states)


def test_a_push_becomes_one_image_on_two_registries(shared: Line) -> None:
    repo = shared.repo("first")
    commit = repo.commit(hello("said once"))
    said = repo.push()
    assert "Albatros: build " in said
    shared.wait_green(repo, commit)
    check_published(shared, "first", commit)
    check_statuses(shared, "first", commit)
    for remote in shared.remotes("first"):
        assert remote.pull("latest", MACHINES[0]) == elf(MACHINES[0], "said once")


def test_the_line_on_postgresql(hub: RegistryServer, postgres_url: str) -> None:
    with make_line(hub, {"database": {"url": postgres_url}}) as line:
        upgrade = [sys.executable, "-m", "albatros", "db", "upgrade", "--config", str(line.paths.config)]
        subprocess.run(upgrade, cwd=ROOT, check=True, capture_output=True)
        line.server.start()
        repo = line.repo("on-postgresql")
        commit = repo.push_files(hello("kept by PostgreSQL"))
        line.wait_green(repo, commit)
        check_published(line, "on-postgresql", commit)
        assert not (line.paths.data / "albatros.sqlite3").exists()
        assert line.server.stop() == 0


@needs("go")
def test_docker_archives_of_a_flake_become_one_image(shared: Line) -> None:
    repo = shared.repo("archives")
    flake = FLAKES / "docker-archive"
    commit = repo.push_files({file.name: file.read_text() for file in flake.iterdir()})
    shared.wait_green(repo, commit)
    digest = check_published(shared, "archives", commit)
    assert list_of(shared.build(commit)["images"])[0]["digest"] == digest
    assert list_of(shared.build(commit)["images"])[0]["name"] == "docker"


def test_a_push_that_changes_nothing_builds_and_sends_nothing(shared: Line, hub: RegistryServer) -> None:
    repo = shared.repo("same")
    files = hello("the same")
    first = repo.push_files(files)
    shared.wait_green(repo, first)
    layers = layers_of(shared, "same", first)
    before = len(hub.requests())
    second = repo.commit({**files, "README.md": "words only\n"}, at_time_of=first)
    repo.push()
    shared.wait_green(repo, second)
    build = shared.build(second)
    for job in list_of(build["jobs"]):
        assert "building /nix/store" not in shared.server.text(f"/api/v1/jobs/{job['id']}/log")
    sent = {tag["bytes_sent"] for image in list_of(build["images"]) for tag in list_of(image["publications"])}
    assert sent == {0}
    asked = [request for request in hub.requests()[before:] if "/same/" in request.path]
    assert any(request.method == "PUT" and "/manifests/" in request.path for request in asked)
    assert not [request for request in asked if request.method in {"POST", "PATCH"}]
    assert layers_of(shared, "same", second) == layers


def layers_of(line: Line, name: str, tag: str) -> set[str]:
    """The digests of all layers and configs under a tag, asked of the distribution registry."""
    hub = line.remotes(name)[1]
    found = set()
    for entry in cast("list[dict[str, str]]", json.loads(hub.index(tag))["manifests"]):
        manifest = json.loads(hub.index(entry["digest"]))
        found |= {part["digest"] for part in (manifest["config"], *manifest["layers"])}
    return found


def test_a_tag_never_goes_back(shared: Line) -> None:
    repo = shared.repo("slow")
    gate = shared.paths.gate / "first-may-end"
    first = repo.push_files(hello("the slow first", MACHINES[:1], wait_for(gate)))
    eventually(lambda: "waiting" in shared.log_of(shared.build(first), "packages."), lambda: shared.server.log)
    second = repo.push_files(hello("the quick second", MACHINES[:1]))
    shared.wait_green(repo, second)
    shared.open_gate("first-may-end")
    shared.wait_green(repo, first)
    for remote in shared.remotes("slow"):
        assert remote.digest("main") == remote.digest("latest") == remote.digest(second)
        old = list_of(shared.build(first)["images"])[0]["digest"]
        assert remote.digest(str(old)) == old != remote.digest(second)
        assert remote.pull("main", MACHINES[0]) == elf(MACHINES[0], "the quick second")
    tags = {(tag["tag"], tag["state"]) for tag in list_of(list_of(shared.build(first)["images"])[0]["publications"])}
    assert tags == {(first, "published"), ("main", "superseded"), ("latest", "superseded")}


def test_a_publication_waits_for_its_registry() -> None:
    port = free_port()
    with make_line(None) as line:
        late = {"name": "late", "url": f"docker://127.0.0.1:{port}", "names": ["{repo}"]}
        line.write_config({"registries": [*cast("list[object]", line.settings["registries"]), late]})
        line.server.start()
        repo = line.repo("late")
        commit = repo.push_files(hello("patient", MACHINES[:1]))
        tags = eventually(lambda: refused_tags(line.build(commit), "late"), lambda: line.server.log)
        assert f"127.0.0.1:{port}" in str(tags[0]["message"])
        assert {tag["state"] for tag in tags} <= {"pending", "pushing"}
        assert line.build(commit)["state"] == "publishing"

        def is_publishing() -> bool:
            status = repo.status(commit)
            return status is not None and status.state == "pending" and "publishing" in status.description

        eventually(is_publishing, lambda: f"{repo.statuses(commit)}\n{line.server.log}")
        with start_registry(port) as registry:
            line.wait_green(repo, commit)
            digests = {remote.digest("main") for remote in (*line.remotes("late"), Remote(registry.host, "late"))}
        assert len(digests) == 1


def refused_tags(build: dict[str, object], registry: str) -> list[dict[str, object]]:
    """Publications at a registry that has refused them so far."""
    images = list_of(build.get("images", []))
    tags = [tag for image in images for tag in list_of(image["publications"]) if tag["registry"] == registry]
    return [tag for tag in tags if tag["message"]]
