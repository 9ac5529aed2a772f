"""What the runner reads: orders, locks, attribute paths, Nix's log lines and hashes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from albatros.runner.attributes import attribute_path, nix_string, split_attribute
from albatros.runner.bundle import build_bundle
from albatros.runner.evaluate import closure, from_eval_jobs
from albatros.runner.failure import JobFailedError, Reason, shorten
from albatros.runner.locks import is_local, refuse_local_inputs, refuse_local_locks
from albatros.runner.nix import failure
from albatros.runner.nixlog import NixLog, short_name
from albatros.runner.order import parse_order
from albatros.runner.outputs import hex_hash, parse_path_info
from albatros.runner.source import resolve_url
from tests.support.runner import build_order, evaluation_order

DRV = "/nix/store/gk8yy8lwfl9lq91vyqb9rnrhga200mzy-hello.drv"
OUT = "/nix/store/9qbgxyziwdkz2v5x4rd701v8yaz5aa57-hello"


def test_an_order_is_typed() -> None:
    order = parse_order(build_order(Path("/r"), "c" * 40, "packages.x86_64-linux.hello", DRV, ("bin/hello",)))
    assert order.build is not None
    assert (order.build.drv_path, order.build.binaries, order.build.keep) == (DRV, ("bin/hello",), True)
    assert order.limits.wall_seconds == 500
    assert parse_order(evaluation_order(Path("/r"), "c" * 40)).build is None


def change(path: str, value: object) -> Callable[[dict[str, object]], None]:
    def apply(order: dict[str, object]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            order = cast("dict[str, object]", order[name])
        order[last] = value

    return apply


@pytest.mark.parametrize(
    "wrong",
    [
        change("kind", "dance"),
        change("kind", "build"),
        change("repo", None),
        change("repo.commit", 7),
        change("limits.wall_seconds", 0),
        change("limits.wall_seconds", True),
        change("nix.sandbox", "yes"),
        change("nix.sandbox_paths", [1]),
        change("access_tokens", {"host": 1}),
    ],
)
def test_a_wrong_order_is_a_driver_failure(wrong: Callable[[dict[str, object]], None]) -> None:
    order = evaluation_order(Path("/r"), "c" * 40)
    wrong(order)
    with pytest.raises(JobFailedError) as refused:
        parse_order(order)
    assert refused.value.reason is Reason.DRIVER


def test_secrets_of_an_order_are_known() -> None:
    order = evaluation_order(Path("/r"), "c" * 40)
    change("repo.password", "hidden")(order)
    change("access_tokens", {"github.com": "also hidden"})(order)
    assert parse_order(order).secrets() == ["hidden", "also hidden"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("packages", "x86_64-linux", "hello"), "packages.x86_64-linux.hello"),
        (("packages", "x86_64-linux", "a.b"), 'packages.x86_64-linux."a.b"'),
        (("packages", "x", 'quote " and \\ and ${x}'), 'packages.x."quote \\" and \\\\ and \\${x}"'),
        (("packages", "x", ""), 'packages.x.""'),
        (("packages", "x", "3d"), 'packages.x."3d"'),
    ],
)
def test_attribute_paths_are_written_and_read_back(parts: tuple[str, ...], text: str) -> None:
    assert attribute_path(parts) == text
    assert split_attribute(text) == parts


@pytest.mark.parametrize("text", ['a."b', "a..b", "a b", "a.${x}", "a.(b)"])
def test_what_is_no_attribute_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an attribute path"):
        split_attribute(text)


def test_a_string_cannot_break_out_of_its_quotes() -> None:
    assert nix_string('"; builtins.abort "${x}') == '"\\"; builtins.abort \\"\\${x}"'


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("github:NixOS/nixpkgs", False),
        ("https://example.org/x.tar.gz", False),
        ("git+https://example.org/x", False),
        ("path:./sub", False),
        ("./sub", False),
        ("path:/etc", True),
        ("PATH:/etc", True),
        ("path:../other", True),
        ("path:./a/../../b", True),
        ("path:%2Fetc", True),
        ("path:./%2e%2e/b", True),
        ("/etc", True),
        ("~/x", True),
        ("file:///etc/passwd", True),
        ("git+file:///srv/repo", True),
        ("tarball+file:///x.tar", True),
    ],
)
def test_a_reference_to_this_machine_is_recognised(url: str, local: bool) -> None:
    assert is_local(url) is local


@pytest.mark.parametrize(
    "inputs",
    [
        {"a": {"url": "path:/etc"}},
        {"a": {"type": "path", "path": "/etc"}},
        {"a": {"url": "github:x/y", "inputs": {"b": {"url": "git+file:///x"}}}},
    ],
)
def test_local_inputs_are_refused(inputs: dict[str, object]) -> None:
    with pytest.raises(JobFailedError, match="lies on the runner's machine"):
        refuse_local_inputs(inputs)


def test_remote_inputs_are_taken() -> None:
    refuse_local_inputs({"a": {"url": "github:x/y", "inputs": {"b": {"follows": "c"}}}, "d": {"flake": False}})
    refuse_local_inputs({})
    refuse_local_inputs(None)


def test_locked_local_inputs_are_refused() -> None:
    refuse_local_locks(None)
    refuse_local_locks(json.dumps({"nodes": {"root": {}, "a": {"locked": {"type": "github", "owner": "x"}}}}))
    for locked in ({"type": "path", "path": "/etc"}, {"type": "git", "url": "file:///srv/x"}):
        with pytest.raises(JobFailedError, match=r"'a' in flake\.lock lies on the runner's machine"):
            refuse_local_locks(json.dumps({"nodes": {"a": {"locked": locked}}}))
    for text in ("{", "[" * 100_000):
        with pytest.raises(JobFailedError, match="not JSON"):
            refuse_local_locks(text)


def event(**fields: object) -> str:
    return "@nix " + json.dumps(fields)


def test_nix_log_lines_become_lines_for_people() -> None:
    lines: list[str] = []
    log = NixLog(lines.append)
    for line in (
        event(action="start", id=1, type=105, level=3, fields=[DRV, "", 1, 1], text="building"),
        event(action="result", id=1, type=101, fields=["\x1b[31mone\x1b[0m"]),
        event(action="result", id=1, type=104, fields=["installPhase"]),
        event(action="start", id=2, type=105, level=3, fields=[DRV.replace("hello", "other"), "", 1, 1], text=""),
        event(action="result", id=1, type=101, fields=["two"]),
        event(action="result", id=2, type=101, fields=["three"]),
        event(action="result", id=2, type=105, fields=[0, 1, 1, 0]),
        event(action="stop", id=2),
        event(action="msg", level=4, msg="evaluating file"),
        "@nix {not json",
        event(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m builder failed"),
        "warning: plain",
    ):
        log.take(line)
    assert lines == [
        f"building {DRV}",
        "one",
        "hello: installPhase",
        f"building {DRV.replace('hello', 'other')}",
        "hello> two",
        "other> three",
        "@nix {not json",
        "error: builder failed",
        "warning: plain",
    ]
    assert log.error_text() == "error: builder failed"
    assert list(log.last_lines) == ["one", "two", "three"]


@pytest.mark.parametrize("line", ["@nix []", "@nix 1", event(action="result"), event(action="start", id="x", type=105)])
def test_odd_log_lines_are_no_error(line: str) -> None:
    log = NixLog()
    log.take(line)
    assert log.errors == []


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ("error: builder for 'x' failed with exit code 3", Reason.BUILD_FAILED),
        ("error: writing to file: No space left on device", Reason.DISK_FULL),
        (
            "error: a 'aarch64-linux' with features {} is required to build 'x', but I am a 'x86_64-linux'",
            Reason.NO_CAPACITY,
        ),
        ("Cannot build 'x'.\nReason: required system or feature not available", Reason.NO_CAPACITY),
        ("error: builder for 'x' failed due to signal 9 (Killed)", Reason.OOM),
        ("error: out of memory", Reason.OOM),
    ],
)
def test_reasons_come_from_nixs_words(errors: str, reason: Reason) -> None:
    assert failure("x failed", errors, Reason.BUILD_FAILED).reason is reason


def test_closures_of_old_and_new_nix_read_the_same() -> None:
    sri = "sha256-Vl9tkS0xSFd8jGpNxBHcKr52MLiwk1memPveTHEVMtc="
    old = [{"path": OUT, "narHash": sri, "narSize": 120, "closureSize": 120, "references": []}]
    new = {OUT: {"narHash": sri, "narSize": 120, "closureSize": 120, "references": []}}
    assert parse_path_info(json.dumps(old)) == parse_path_info(json.dumps(new))


def test_hashes_are_hex_in_the_end() -> None:
    expected = "sha256:565f6d912d3148577c8c6a4dc411dc2abe7630b8b093599e98fbde4c711532d7"
    assert hex_hash("sha256-Vl9tkS0xSFd8jGpNxBHcKr52MLiwk1memPveTHEVMtc=") == expected
    assert hex_hash(expected) == expected
    assert hex_hash("sha256:1cwwmps94blwqxh8b6g5kczxzcxhvq4g3c9pjbzqf5a30cjlgp1p").startswith("sha256:")
    with pytest.raises(ValueError, match="not a SHA-256"):
        hex_hash("md5:x")


def test_nix_eval_jobs_lines_are_read() -> None:
    line = {"attr": "x86_64-linux.hello", "attrPath": ["x86_64-linux", "hello"], "drvPath": DRV}
    found = from_eval_jobs("packages", json.dumps({**line, "system": "x86_64-linux", "name": "hello"}))
    assert (found.attribute, found.drv_path, found.error) == ("packages.x86_64-linux.hello", DRV, None)
    failed = from_eval_jobs("checks", json.dumps({"attr": "a.b", "attrPath": ["a", "b"], "error": "a trace"}))
    assert (failed.attribute, failed.drv_path, failed.error) == ("checks.a.b", None, "a trace")


def test_a_closure_is_everything_below() -> None:
    references = {"a": ["b", "c"], "b": ["d"], "c": [], "d": ["a"]}
    assert closure("a", references) == {"b", "c", "d"}
    assert closure("c", references) == set()


@pytest.mark.parametrize(
    ("parent", "url", "resolved"),
    [
        ("/w/host/owner/source", "../middle", "/w/host/owner/middle"),
        ("/w/host/owner/source", "../../other/x.git", "/w/host/other/x.git"),
        ("/w/source", "./inner", "/w/source/inner"),
        ("https://example.org/o/n", "../m", "https://example.org/o/m"),
        ("/w/source", "https://example.org/x", "https://example.org/x"),
    ],
)
def test_submodule_urls_are_resolved_as_git_does(parent: str, url: str, resolved: str) -> None:
    assert resolve_url(parent, url) == resolved


def test_long_messages_lose_their_middle() -> None:
    text = shorten("a" * 5000 + "z" * 5000, 4000)
    assert len(text) == 4000
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert shorten("short", 4000) == "short"


def test_a_short_name() -> None:
    assert short_name(DRV) == "hello"


def test_the_bundle_has_the_same_bytes_each_time() -> None:
    first, second = build_bundle(), build_bundle()
    assert first == second
    assert first.digest.startswith("sha256:")
