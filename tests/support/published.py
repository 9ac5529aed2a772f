"""What has to be true of an image once its commit is green, asked of the registries."""

from tests.support.flakes import MACHINES
from tests.support.line import Line
from tests.support.pulls import elf_machine

PLATFORMS = {(machine.architecture, machine.variant) for machine in MACHINES}


def check_published(line: Line, name: str, commit: str) -> str:
    """One index digest under all tags at both registries, every platform's program in it; the digest."""
    remotes = line.remotes(name)
    digest = remotes[0].digest(commit)
    for remote in remotes:
        assert remote.tags() == {commit, "main", "latest"}
        assert {remote.digest(tag) for tag in (commit, "main", "latest")} == {digest}
        assert remote.platforms(commit) == PLATFORMS
        for machine in MACHINES:
            assert elf_machine(remote.pull(commit, machine)) == machine.elf
    return digest
