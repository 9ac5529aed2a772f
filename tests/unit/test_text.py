"""Text from outside in a form that every database and page takes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.text import plain


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("plain text\n\twith lines", "plain text\n\twith lines"),
        ("\x1b[31;1merror:\x1b[0m undefined", "error: undefined"),
        ("\x1b]0;a title\x07after", "after"),
        ("a\x00b", "a\ufffdb"),
        ("one\r\ntwo\rthree", "one\ntwo\ufffdthree"),
        (json.loads('"half \\ud83d pair"'), "half \ufffd pair"),
        ("", ""),
        (None, ""),
        (["no", "text"], ""),
    ],
)
def test_what_is_left_of_a_text(given_text: object, kept: str) -> None:
    assert plain(given_text, 100) == kept


def test_it_is_cut_to_its_limit() -> None:
    assert plain("x" * 5000, 100) == "x" * 100
    assert plain("\x1b[31m" * 10 + "x" * 100, 50) == "x" * 50


@given(st.text(st.characters(), max_size=300), st.integers(0, 200))
def test_any_text_is_fit_for_a_database(text: str, limit: int) -> None:
    kept = plain(text, limit)
    assert len(kept) <= limit
    assert "\x00" not in kept
    assert "\x1b" not in kept
    assert kept.encode().decode() == kept
