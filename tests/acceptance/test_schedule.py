"""A repo's timetable on a running server: nobody pushes, and the minute comes."""

from tests.support.flakes import HOST_SYSTEM, derivation, flake
from tests.support.line import Line, list_of
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")


def builds(line: Line, repo: str) -> list[dict[str, object]]:
    """Newest first."""
    return list_of(line.server.get(f"/api/v1/builds?repo=alba/{repo}")["items"])


def test_the_default_branch_is_built_when_its_minute_comes(shared: Line) -> None:
    repo = shared.repo("timetable")
    files = {
        "flake.nix": flake({f"checks.{HOST_SYSTEM}.it": derivation("it", "echo made > $out")}),
        ".albatros.toml": '[schedule]\ncron = ["* * * * *"]\n',
    }
    commit = repo.push_files(files)
    shared.wait_green(repo, commit)

    def scheduled() -> dict[str, object] | None:
        """Any of them: on a slow machine the next minute comes before this one's is built."""
        found = [build for build in builds(shared, "timetable") if build["trigger"] == "schedule"]
        return next((build for build in found if build["state"] == "succeeded"), None)

    build = eventually(scheduled, lambda: f"{builds(shared, 'timetable')}\n{shared.server.log}")
    assert (build["commit"], build["ref"]) == (commit, "refs/heads/main")
    repo.push_files({**files, ".albatros.toml": ""})
    emptied = "SELECT next_at FROM schedules JOIN repos ON repos.id = repo_id WHERE name = 'timetable'"
    eventually(lambda: shared.sql(emptied) == [(None,)], lambda: str(shared.sql(emptied)))
