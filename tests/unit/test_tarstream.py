"""Tar archives of strangers: every form that writers use is read, and nothing that is damaged or hostile gets by."""

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatros.errors import ImageError
from albatros.images.tarstream import Member, MemberKind, TarStream, looks_like_tar
from tests.support.archives import member, write_tar

LONG = "a/" * 90 + "file"


def members(data: bytes) -> list[tuple[Member, bytes]]:
    stream = TarStream(io.BytesIO(data))
    return [(found, b"".join(iter(lambda: stream.read(100), b""))) for found in stream]


def raw_header(size_field: bytes, kind: bytes = b"0", name: bytes = b"x") -> bytes:
    """A header with a right checksum, whatever its fields say."""
    header = bytearray(512)
    header[: len(name)] = name
    header[124 : 124 + len(size_field)] = size_field
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_is_read(form: int) -> None:
    files = [(member("./first"), b"1" * 513), (member("dir/ümlaut"), b""), (member(LONG), b"long" * 1000)]
    assert [(m.name, data) for m, data in members(write_tar(files, form))] == [
        ("first", b"1" * 513),
        ("dir/ümlaut", b""),
        (LONG, b"long" * 1000),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_name_their_targets_from_the_root(form: int) -> None:
    data = write_tar(
        [
            (member("a/link", tarfile.SYMTYPE, "../b/layer.tar"), b""),
            (member("hard", tarfile.LNKTYPE, LONG), b""),
            (member("directory/", tarfile.DIRTYPE), b""),
            (member("pipe", tarfile.FIFOTYPE), b""),
        ],
        form,
    )
    assert [m for m, _ in members(data)] == [
        Member("a/link", MemberKind.SYMBOLIC_LINK, 0, "b/layer.tar"),
        Member("hard", MemberKind.HARD_LINK, 0, LONG),
        Member("directory", MemberKind.OTHER, 0),
        Member("pipe", MemberKind.OTHER, 0),
    ]


def test_what_is_not_read_is_skipped() -> None:
    stream = TarStream(io.BytesIO(write_tar([(member("big"), b"x" * 1_000_000), (member("small"), b"yes")])))
    seen = [found.name for found in stream]
    assert seen == ["big", "small"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a/..", "x" * 5000])
def test_names_outside_the_archive_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"outside itself|no file can have"):
        members(write_tar([(member(name), b"")], tarfile.GNU_FORMAT))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_outside_the_archive_are_refused(kind: bytes) -> None:
    with pytest.raises(ImageError, match="outside itself"):
        members(write_tar([(member("a/link", kind, "../../up"), b"")]))


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1023, 1024, 1535])
def test_a_truncated_archive_is_refused(cut: int) -> None:
    data = write_tar([(member("file"), b"x" * 700)])
    with pytest.raises(ImageError, match="truncated"):
        members(data[:cut])


def test_garbage_is_no_archive() -> None:
    with pytest.raises(ImageError, match="not a tar archive"):
        members(b"garbage!" * 200)


@pytest.mark.parametrize("size", [b"-0000000010\0", b"zzzzzzzzzzz\0", b"\xff" * 12])
def test_impossible_sizes_are_refused(size: bytes) -> None:
    with pytest.raises(ImageError, match="impossible size"):
        members(raw_header(size) + bytes(1024))


def test_a_size_in_base_256_is_read() -> None:
    size = b"\x80" + (3).to_bytes(11, "big")
    assert members(raw_header(size) + b"abc" + bytes(509) + bytes(1024)) == [(Member("x", MemberKind.FILE, 3), b"abc")]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_an_extended_header_is_not_read_whatever_its_size(kind: bytes) -> None:
    with pytest.raises(ImageError, match="extended header of"):
        members(raw_header(b"77777777777\0", kind) + bytes(1 << 20))


@pytest.mark.parametrize(
    "record",
    [
        b"9999 path=x\n",
        b"x path=x\n",
        b"5 =\n",
        b"8 path\n",
        b"\n",
        b"0 a=b\n",
        b"-5 a=b\n",
    ],
)
def test_damaged_pax_headers_are_refused(record: bytes) -> None:
    size = b"%011o\0" % len(record)
    with pytest.raises(ImageError, match="pax header"):
        members(raw_header(size, b"x") + record.ljust(512, b"\0") + raw_header(b"0" * 11) + bytes(1024))


def test_sparse_files_are_refused() -> None:
    with pytest.raises(ImageError, match="sparse"):
        members(raw_header(b"0" * 11, b"S") + bytes(1024))


def test_a_flood_of_members_is_refused() -> None:
    with pytest.raises(ImageError, match="more than 20000 members"):
        members(raw_header(b"0" * 11) * 20_001)


def test_first_records_that_begin_a_tar() -> None:
    assert looks_like_tar(raw_header(b"0" * 11))
    assert looks_like_tar(bytes(512))
    assert not looks_like_tar(b"{" * 512)
    assert not looks_like_tar(bytes(100))


@given(st.binary(max_size=3000), st.integers(0, 1535))
@settings(max_examples=300, deadline=None)
def test_any_damage_ends_in_an_error_or_in_members(noise: bytes, at: int) -> None:
    data = bytearray(write_tar([(member("file"), b"x" * 700)]))
    data[at : at + len(noise)] = noise
    with suppress(ImageError):
        assert all(found.name == found.name.lstrip("/") for found, _ in members(bytes(data)))
