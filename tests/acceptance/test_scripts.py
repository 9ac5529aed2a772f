"""Scripts from a push to the pulled image: the real runner and `alba`, real registries, and a server that dies."""

from tests.services.registry import RegistryServer
from tests.support.flakes import AMD64, archives
from tests.support.line import Line
from tests.support.pulls import elf_machine
from tests.support.scripts import MACHINES, image_files, push_script, start_with_scripts
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")


def test_a_script_publishes_through_a_server_that_is_killed_meanwhile(line: Line, hub: RegistryServer) -> None:
    start_with_scripts(line)
    repo = line.repo("scripted")
    gate = line.paths.gate / "go"
    text = f"""#!/bin/sh -eu
echo ready; while [ ! -e {gate} ]; do sleep 0.1; done
for registry in hub static; do
  alba container push -t "scripted:$BRANCH" -t "scripted:edge" images "$registry"
done
if alba container push -t scripted:9.9.9 images hub; then exit 9; else test $? = 1; fi
if alba container push -t scripted:x nowhere hub; then exit 9; else test $? = 2; fi
echo all done; cat "$ALBATROS_JOB"; echo
"""
    commit = push_script(repo, text, image_files("by a script"))
    eventually(lambda: "ready" in line.log_of(line.build(commit), ".albatros"), lambda: line.server.log)
    line.server.kill()
    line.open_gate("go")
    line.server.start()
    line.wait_green(repo, commit)
    log = line.log_of(line.build(commit), ".albatros")
    assert "all done" in log
    assert "kept for releases" in log
    assert "nowhere is not there" in log
    assert '"token": "***"' in log
    digests = set()
    for remote in line.remotes("scripted"):
        assert remote.tags() == {"main", "edge"}
        digests |= {remote.digest("main"), remote.digest("edge")}
        assert remote.platforms("main") == {(machine.architecture, machine.variant) for machine in MACHINES}
        for machine in MACHINES:
            assert elf_machine(remote.pull("main", machine)) == machine.elf
    (digest,) = digests
    assert log.count(digest) == 4, "the reference of each tag at each registry was printed"
    statuses = {status.context: status.state for status in repo.statuses(commit)}
    assert statuses["albatros"] == "success"
    assert statuses["albatros/scripted:edge@hub"] == "success"
    (rows,) = line.sql("SELECT count(*) FROM image_requests")
    assert rows == (4,)
    assert line.server.stop() == 0


def test_what_a_script_builds_with_nix_it_publishes_from_the_runners_own_store(line: Line, hub: RegistryServer) -> None:
    start_with_scripts(line)
    repo = line.repo("nixscript")
    text = """#!/bin/sh -eu
nix build .#packages.x86_64-linux.docker --out-link "$HOME/linux.amd64.tar.gz"
alba container push -t "nixscript:by-script" "$HOME" hub
"""
    files = {name: content.encode() for name, content in archives("made twice", [AMD64]).items()}
    commit = push_script(repo, text, files)
    line.wait_green(repo, commit)
    (_, remote) = line.remotes("nixscript")
    assert remote.tags() == {commit, "main", "latest", "by-script"}
    assert remote.digest("by-script") == remote.digest(commit), "the flake's image and the script's are one"
    assert line.server.stop() == 0
