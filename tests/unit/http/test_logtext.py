from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.http import logtext
from albatros.http.logtext import MAX_BYTES, MAX_LINES, LogWindow, plain_text, tail, window


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"\x1b[31;1merror:\x1b[0m bad", "error: bad"),
        (b"\x1b]8;;http://evil\x07link\x1b]8;;\x07", "link"),
        (b"\x1b]0;title", ""),
        (b"\x1b(Bok\x1bc", "ok"),
        (b"10%\r50%\r100%", "100%"),
        (b"windows\r", "windows"),
        (b"tab\there", "tab\there"),
        (b"bell\x07 nul\x00 del\x7f", "bell nul del"),
        ("user\u202enimda".encode(), "usernimda"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_a_line_is_plain_text(raw: bytes, shown: str) -> None:
    assert plain_text(raw) == shown


Show = Callable[[Iterable[bytes]], LogWindow]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def expected_lines(data: bytes) -> list[str]:
    return data.decode().removesuffix("\n").split("\n") if data else []


lines_of_text = st.lists(st.text("ab ", max_size=12), max_size=40).map("\n".join).map(str.encode)


@given(lines_of_text, st.integers(1, 30))
def test_the_tail_of_a_small_log_is_all_of_it(data: bytes, size: int) -> None:
    shown = tail(pieces(data, size))
    assert (shown.first, list(shown.lines), shown.total) == (1, expected_lines(data), len(expected_lines(data)))


@given(lines_of_text, st.integers(1, 30), st.integers(1, 50))
def test_a_window_begins_where_it_is_asked_to(data: bytes, size: int, first: int) -> None:
    shown, expected = window(pieces(data, size), first), expected_lines(data)
    assert (shown.first, list(shown.lines), shown.total) == (first, expected[first - 1 :], len(expected))


@given(lines_of_text, st.integers(1, 30), st.sampled_from([tail, lambda chunks: window(chunks, 1)]))
def test_the_log_goes_on_behind_its_last_whole_line(data: bytes, size: int, show: Show) -> None:
    log = show(pieces(data, size)).log
    assert data[: log.whole_bytes].count(b"\n") == log.whole_lines
    assert b"\n" not in data[log.whole_bytes :]


def test_a_tail_has_the_last_lines_with_their_numbers() -> None:
    data = b"".join(b"line %d\n" % number for number in range(1, 10_001))
    shown = tail(pieces(data, 4096))
    assert (shown.first, shown.last, shown.total) == (10_001 - MAX_LINES, 10_000, 10_000)
    assert shown.lines[0] == f"line {shown.first}"
    assert shown.lines[-1] == "line 10000"


def test_windows_one_after_the_other_are_the_whole_log() -> None:
    numbers = range(1, 2_345)
    data = b"".join(b"line %d\n" % number for number in numbers)
    seen: list[str] = []
    while len(seen) < len(numbers):
        seen += window(pieces(data, 1000), len(seen) + 1).lines
    assert seen == [f"line {number}" for number in numbers]


@pytest.mark.parametrize("show", [tail, lambda chunks: window(chunks, 1)])
def test_a_hostile_line_does_not_fill_the_page(show: Show) -> None:
    shown = show(pieces(b"x" * (MAX_BYTES * 5) + b"\nshort\n", 65536))
    assert sum(map(len, shown.lines)) <= MAX_BYTES
    assert shown.total == 2


def test_a_cut_line_is_not_shown_as_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logtext, "MAX_BYTES", 16)
    data = b"the first line\nthe second\nthird\n"
    assert (tail([data]).first, tail([data]).lines) == (3, ("third",))
    assert window([data], 1).lines == ("the first line",)
