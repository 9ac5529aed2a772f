"""What a repo can get wrong: the Build fails, a sentence names the attribute, and the commit's note says failure."""

from dataclasses import dataclass, field

import pytest

from tests.support.flakes import (
    AMD64,
    ARM64,
    HOST_SYSTEM,
    IMAGE_CONFIG,
    archives,
    derivation,
    elf,
    flake,
    hello,
    write_bytes,
    write_program,
)
from tests.support.line import Line, list_of
from tests.support.runner import FLAKES
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")
GOOD = derivation("good", "echo made well > $out")
BROKEN = derivation("broken", "echo the first line; echo the last words of broken; exit 3")
MKDIR = "/usr/bin/mkdir -p $out/bin\n"


def image_of(**scripts: str) -> dict[str, str]:
    """A repo with the image `hello`, whose platforms these builders make."""
    attributes = {f"packages.{system}.hello": derivation("hello", script) for system, script in scripts.items()}
    return {"flake.nix": flake(attributes), ".albatros.toml": IMAGE_CONFIG}


def program(data: bytes) -> str:
    return f"{MKDIR}{write_bytes(data, '$out/bin/hello')}"


@dataclass(frozen=True)
class Wrong:
    """A repo that cannot be built, the reason as a word, and what the sentence has to name."""

    name: str
    files: dict[str, str]
    reason: str
    says: tuple[str, ...]
    succeed: frozenset[str] = field(default_factory=frozenset)


AMD64_HELLO, ARM64_HELLO = "packages.x86_64-linux.hello", "packages.aarch64-linux.hello"
HOST = {"good": f"packages.{HOST_SYSTEM}.good", "bad": f"packages.{HOST_SYSTEM}.bad"}
CASES = (
    Wrong("no-flake", {"README.md": "no flake here\n"}, "evaluation_failed", ("alba/no-flake", "flake.nix")),
    Wrong(
        "syntax-error",
        {"flake.nix": (FLAKES / "syntax-error" / "flake.nix").read_text()},
        "evaluation_failed",
        ("syntax error", "flake.nix"),
    ),
    Wrong(
        "attribute-throws",
        {"flake.nix": flake({HOST["good"]: GOOD, HOST["bad"]: 'throw "not for this system"'})},
        "evaluation_failed",
        (HOST["bad"], "not for this system"),
        frozenset({HOST["good"]}),
    ),
    Wrong(
        "builder-fails",
        {"flake.nix": flake({HOST["good"]: GOOD, HOST["bad"]: BROKEN})},
        "build_failed",
        (HOST["bad"], "the last words of broken"),
        frozenset({HOST["good"]}),
    ),
    Wrong(
        "no-such-binary",
        image_of(**{AMD64.system: f"{MKDIR}echo > $out/bin/other"}),
        "build_failed",
        (AMD64_HELLO, "bin/hello", "binary"),
    ),
    Wrong(
        "platform-missing",
        {
            **hello("half of it", [AMD64]),
            ".albatros.toml": f'{IMAGE_CONFIG}platforms = ["linux/amd64", "linux/arm64"]\n',
        },
        "build_failed",
        ("hello", "linux/arm64"),
        frozenset({AMD64_HELLO}),
    ),
    Wrong(
        "wrong-machine",
        image_of(
            **{AMD64.system: write_program(AMD64, "right"), ARM64.system: program(elf(AMD64, "not an arm64 program"))}
        ),
        "build_failed",
        (ARM64_HELLO, "amd64", "arm64"),
    ),
    Wrong(
        "wants-an-interpreter",
        image_of(**{AMD64.system: program(elf(AMD64, "dynamic", interpreter=True))}),
        "build_failed",
        (AMD64_HELLO, "interpreter"),
    ),
    Wrong(
        "no-program-at-all",
        image_of(**{AMD64.system: f"{MKDIR}echo not a program > $out/bin/hello"}),
        "build_failed",
        (AMD64_HELLO, "not a tar archive"),
    ),
    Wrong(
        "unknown-key",
        {**hello("never built", [AMD64]), ".albatros.toml": '[images.hello]\nbinari = "bin/hello"\n'},
        "evaluation_failed",
        (".albatros.toml", "images.hello.binari", "'binary'"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_is_wrong_fails_by_name(shared: Line, case: Wrong) -> None:
    repo = shared.repo(case.name)
    commit = repo.push_files(case.files)
    status = shared.wait(repo, commit)
    assert status.state == "failure"
    build = shared.build(commit)
    assert (build["state"], build["reason"]) == ("failed", case.reason)
    for word in case.says:
        assert word in str(build["message"])
    assert not list_of(build["images"])
    succeeded = {str(name) for job in list_of(build["jobs"]) if job["state"] == "succeeded" for name in names_of(job)}
    assert succeeded >= case.succeed
    for remote in shared.remotes(case.name):
        assert not remote.has(commit)
        assert not remote.has("main")


def names_of(job: dict[str, object]) -> list[object]:
    found = job["attributes"]
    assert isinstance(found, list)
    return found


def test_a_failing_builder_leaves_its_log_and_a_status_of_its_own(shared: Line) -> None:
    repo = shared.repo("its-log")
    commit = repo.push_files({"flake.nix": flake({HOST["bad"]: BROKEN})})
    shared.wait(repo, commit)
    log = shared.log_of(shared.build(commit), "broken")
    assert "the first line\n" in log
    assert "the last words of broken\n" in log
    shared.wait_statuses(repo, commit, {"albatros": "failure", f"albatros/{HOST['bad']}": "failure"})


def test_two_archives_for_one_platform_are_refused(shared: Line) -> None:
    files = archives("twice", [AMD64, ARM64])
    repo = shared.repo("twice-amd64")
    commit = repo.push_files({"flake.nix": files["flake.nix"].replace("architecture=arm64", "architecture=amd64")})
    assert shared.wait(repo, commit).state == "failure"
    build = shared.build(commit)
    assert build["reason"] == "build_failed"
    for word in ("packages.x86_64-linux.docker", "packages.aarch64-linux.docker", "linux/amd64"):
        assert word in str(build["message"])
    assert not shared.remotes("twice-amd64")[0].has(commit)


def test_a_dependent_of_a_failed_build_is_skipped(shared: Line) -> None:
    path = f"packages.{HOST_SYSTEM}"
    text = f"""{{
  outputs = {{ self }}: {{
    {path} = rec {{
      broken = {BROKEN};
      dependent = {derivation("dependent", "echo on $broken > $out", more="inherit broken;")};
    }};
  }};
}}
"""
    repo = shared.repo("dependent")
    commit = repo.push_files({"flake.nix": text})
    assert shared.wait(repo, commit).state == "failure"
    states = {str(job["name"]): job["state"] for job in list_of(shared.build(commit)["jobs"])}
    assert states == {"evaluation": "succeeded", "broken": "failed", "dependent": "skipped"}


def test_a_system_that_nobody_builds_is_named(shared: Line) -> None:
    repo = shared.repo("foreign")
    foreign = derivation("foreign", "echo > $out", system="riscv64-linux")
    commit = repo.push_files({"flake.nix": flake({HOST["bad"]: foreign})})
    status = shared.wait(repo, commit)
    assert status.state == "error"
    build = shared.build(commit)
    assert (build["state"], build["reason"]) == ("errored", "no_capacity")
    assert HOST["bad"] in str(build["message"])
    assert "riscv64-linux" in str(build["message"])
