"""No secret leaves a masked stream, however it was cut, wrapped or encoded; everything else does."""

import base64
import json
import textwrap
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.runner.masking import MASK, SHOWN, Masker

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
KEY = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIGFsYmF0cm9z\nb25lIG1vcmUgbGluZSBvZiBpdA==\n-----END KEY-----\n"
tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=6, max_size=60)
noise = st.binary(max_size=40).filter(lambda data: MASK not in data)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def through(masker: Masker, pieces: list[bytes]) -> bytes:
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.flush()])


def without_breaks(data: bytes) -> bytes:
    return data.replace(b"\n", b"")


sizes = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@given(tokens, noise, noise, sizes)
def test_a_secret_is_masked_however_the_stream_is_cut(
    secret: str, before: bytes, after: bytes, sizes: list[int]
) -> None:
    told = through(Masker([secret]), cut(before + secret.encode() + after, sizes))
    assert secret.encode() not in told
    assert MASK in told


@given(tokens, st.integers(1, 20), sizes)
def test_a_secret_is_masked_across_line_breaks(secret: str, width: int, sizes: list[int]) -> None:
    wrapped = "\n    ".join(secret[start : start + width] for start in range(0, len(secret), width))
    told = through(Masker([secret]), cut(f"before: {wrapped} :after\n".encode(), sizes))
    assert secret.encode() not in without_breaks(told).replace(b" ", b"")
    assert told.startswith(b"before: ")
    assert told.endswith(b" :after\n")
    assert MASK in told


@given(tokens, st.integers(0, 8), st.integers(0, 8), st.booleans(), st.integers(4, 80), sizes)
def test_a_secret_is_masked_in_base64_at_every_alignment(
    secret: str, before: int, after: int, url_safe: bool, width: int, sizes: list[int]
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    encoded = encode(b"\xff" * before + secret.encode() + b"\xff" * after).decode()
    its_own = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
    lines = "\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    told = through(Masker([secret]), cut(f"{lines}\n".encode(), sizes))
    assert MASK in told
    assert its_own[SHOWN:].encode() not in without_breaks(told)


@pytest.mark.parametrize("secret", [TOKEN, KEY, 'with "quotes" and \\ and ü'])
@pytest.mark.parametrize("form", [json.dumps, quote, lambda text: quote(text, "")])
def test_a_secret_is_masked_as_json_and_urls_write_it(secret: str, form: Callable[[str], str]) -> None:
    written = form(secret)
    told = through(Masker([secret]), [f"x {written} y".encode()])
    assert written.strip('"').encode() not in told
    assert MASK in told


@given(sizes)
def test_every_line_of_a_secret_is_masked_under_a_builders_name(sizes: list[int]) -> None:
    printed = [f"hello-1.0> {line}\n".encode() for line in KEY.splitlines()]
    for pieces in (printed, cut(textwrap.indent(KEY, "\t").encode(), sizes)):
        told = through(Masker([KEY]), pieces)
        assert not [line for line in KEY.encode().splitlines() if line in told]


def test_a_secret_that_is_wrapped_below_a_builders_name_is_masked() -> None:
    told = through(Masker([TOKEN]), [f"hello> {TOKEN[:15]}\n".encode(), f"hello> {TOKEN[15:]} done\n".encode()])
    assert told == b"hello> *** done\n"


@given(st.lists(noise, max_size=10), st.lists(tokens, max_size=3))
def test_what_holds_no_secret_comes_out_as_it_was(pieces: list[bytes], secrets: list[str]) -> None:
    whole = b"".join(pieces)
    told = through(Masker(secrets), pieces)
    assert told == whole or MASK in told
    assert through(Masker([]), pieces) == whole


@given(tokens.filter(lambda text: len(set(text)) == len(text)), st.integers(0, 60))
def test_little_is_held_back_and_nothing_lost(secret: str, length: int) -> None:
    beginning = secret[: min(length, len(secret) - 1)].encode()
    masker = Masker([secret])
    told = masker.feed(b"\x00" + beginning)
    assert len(told) == 1 + (len(beginning) if len(beginning) <= SHOWN else 0)
    assert told + masker.feed(b"\x00") + masker.flush() == b"\x00" + beginning + b"\x00"


@given(tokens, st.integers(1, 5))
def test_secrets_side_by_side_and_inside_one_another_are_masked(secret: str, count: int) -> None:
    longer = f"{secret}-and-more"
    told = through(Masker([secret, longer]), [(longer + secret * count).encode()])
    assert secret.encode() not in told


@given(tokens)
def test_a_text_of_its_own_is_masked(secret: str) -> None:
    masker = Masker([secret])
    assert secret not in masker.whole(f"error: {secret[:3]}\n{secret[3:]} and {secret}")
    assert masker.whole("nothing\nhere") == "nothing\nhere" or secret in "nothinghere"


MANY = "\n".join(f"line-{number:04d}-{number * 7919 % 10007:05d}" for number in range(1000))
LONG = Masker([MANY])


@given(st.integers(0, 999), st.sampled_from([str.encode, lambda line: base64.b64encode(line.encode())]), noise, sizes)
def test_every_line_of_a_long_secret_is_masked_also_in_base64(
    number: int, form: Callable[[str], bytes], before: bytes, sizes: list[int]
) -> None:
    shown = form(MANY.splitlines()[number])
    told = through(LONG, cut(before + b"\n" + shown + b" and what follows\n", sizes))
    assert shown.rstrip(b"=")[:-1] not in told
    assert MASK in told
    assert told.endswith(b" and what follows\n")


@given(st.lists(noise, max_size=8))
def test_what_holds_nothing_of_a_long_secret_comes_out_as_it_was(pieces: list[bytes]) -> None:
    assert through(LONG, pieces) == b"".join(pieces)
