"""What a runner says of its end, checked."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.outputs import MAX_CLOSURE, MAX_FILES, MAX_OUTPUTS, OutputFile, read_outputs
from albatros.domain.result import read_result
from albatros.domain.states import Reason
from albatros.errors import BadInputError

DIGEST = "sha256:" + "0" * 64


def file(path: str = "", **changes: object) -> dict[str, object]:
    return {"path": path, "kind": "file", "digest": DIGEST, "size": 3, "executable": False} | changes


def output(name: str = "out", **changes: object) -> dict[str, object]:
    return {
        "output": name,
        "store_path": "/nix/store/x-hello",
        "nar_hash": DIGEST,
        "nar_size": 3,
        "closure": [{"path": "/nix/store/x-hello", "nar_hash": DIGEST, "nar_size": 3}],
        "files": [file()],
    } | changes


def test_a_success_is_read() -> None:
    result = read_result({"outcome": "succeeded", "message": "", "nix_version": "2.8.0", "outputs": [output()]})
    assert result.succeeded
    assert (result.reason, result.handed_back, result.nix_version) == (None, False, "2.8.0")
    assert result.outputs[0].files == (OutputFile("", "file", DIGEST, executable=False),)
    assert result.outputs[0].closure == [{"path": "/nix/store/x-hello", "nar_hash": DIGEST, "nar_size": 3}]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_read(reason: Reason) -> None:
    result = read_result({"outcome": "failed", "reason": reason.value, "message": "the \x1b[1mend\x00"})
    assert (result.succeeded, result.reason, result.handed_back, result.message) == (
        False,
        reason,
        False,
        "the end\ufffd",
    )


def test_a_handback_has_no_reason() -> None:
    result = read_result({"outcome": "failed", "reason": "handback"})
    assert (result.succeeded, result.handed_back, result.reason) == (False, True, None)


def test_a_success_hands_nothing_back() -> None:
    assert not read_result({"outcome": "succeeded", "reason": "handback"}).handed_back


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "outcome must be"),
        ({"outcome": "great"}, "outcome must be"),
        ({"outcome": ["failed"]}, "outcome must be"),
        ({"outcome": "failed"}, "reason must be"),
        ({"outcome": "failed", "reason": "bored"}, "reason must be handback or one of build_failed"),
        ({"outcome": "failed", "reason": ["timeout"]}, "reason must be"),
        ({"outcome": "succeeded", "evaluation": []}, "evaluation must be an object"),
        ({"outcome": "succeeded", "outputs": "x"}, "outputs must be a list"),
        ({"outcome": "succeeded", "outputs": ["x"]}, "outputs: an item is no object"),
    ],
)
def test_what_cannot_be_read_is_said(body: dict[str, object], says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_result(body)
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([output()] * (MAX_OUTPUTS + 1), "at most 32"),
        ([output(), output()], "one name stands twice"),
        ([output("../x")], "no name of an output"),
        ([output("a" * 65)], "output must be printable text"),
        ([output(store_path=3)], "store_path must be"),
        ([output(store_path="/nix\x00")], "store_path must be printable"),
        ([output(nar_hash="x" * 129)], "nar_hash must be"),
        ([output(files=None)], "files must be a list"),
        ([output(files=[file(f"f{n}") for n in range(MAX_FILES + 1)])], "files must be a list of at most 1000"),
        ([output(files=[3])], "files: an item is no object"),
        ([output(files=[file("a"), file("a")])], "one path stands twice"),
        ([output(files=[file("/etc/passwd")])], "must lie inside"),
        ([output(files=[file("a/../../b")])], "must lie inside"),
        ([output(files=[file("a\nb")])], "printable"),
        ([output(files=[file(kind="device")])], "no known kind"),
        ([output(files=[file(digest="sha256:" + "0" * 63)])], "no sha256 digest"),
        ([output(files=[file(digest=DIGEST + "\n")])], "printable"),
        ([output(closure=[{}])], "path must be"),
        ([output(closure=["x"])], "closure: an item is no object"),
        ([output(closure=[None] * (MAX_CLOSURE + 1))], "closure must be a list of at most 20000"),
    ],
)
def test_outputs_that_cannot_be_read_are_said(outputs: object, says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_outputs(outputs)
    assert says in caught.value.detail


def test_numbers_of_the_closure_are_not_believed() -> None:
    for size in (-1, True, 1.5, "3", None):
        entry = {"path": "p", "nar_hash": "h", "nar_size": size}
        assert read_outputs([output(closure=[entry])])[0].closure[0]["nar_size"] == 0


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {"outcome": st.sampled_from(["succeeded", "failed"])},
    optional={
        "reason": st.one_of(st.sampled_from([*Reason, "handback"]), JSON),
        "message": JSON,
        "nix_version": JSON,
        "evaluation": JSON,
        "outputs": st.one_of(
            JSON, st.lists(st.builds(lambda key, value: output(**{key: value}), st.sampled_from(list(output())), JSON))
        ),
    },
)


@given(st.one_of(BODIES, st.dictionaries(st.text(max_size=10), JSON, max_size=5)))
def test_any_body_is_read_or_refused(body: dict[str, object]) -> None:
    with contextlib.suppress(BadInputError):
        result = read_result(body)
        for text in (result.message, result.nix_version, *(item.store_path for item in result.outputs)):
            assert "\x00" not in text
            text.encode()
        for item in result.outputs:
            json.dumps(item.closure).encode()
