"""Archives depend on the files alone, and their headers are those of Go's archive/tar."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from albatros.runner.archive import Member, Sink, TarWriter, add_tree, headers
from tests.tools import needs

GO = """package main
import ("archive/tar"; "os"; "time"; "bufio"; "strings"; "strconv")
func main() {
	out := tar.NewWriter(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Split(in.Text(), "\\t")
		uid, _ := strconv.Atoi(f[2])
		h := &tar.Header{Name: f[0], Typeflag: tar.TypeReg, Mode: 0644, Uid: uid, Uname: f[3]}
		h.Gname, h.ModTime = "root", time.Unix(1, 0)
		if f[1] != "" { h.Typeflag = tar.TypeSymlink; h.Linkname = f[1]; h.Mode = 0777 }
		if err := out.WriteHeader(h); err != nil { panic(err) }
	}
	out.Close()
}
"""
MEMBERS = [
    Member("/nix/store/short", 0o644),
    Member("a" * 100, 0o644),
    Member("a" * 101, 0o644),
    Member("/nix/store/" + "d" * 60 + "/" + "f" * 80, 0o644),
    Member("/" + "d" * 155 + "/" + "f" * 100, 0o644),
    Member("/" + "d" * 156 + "/" + "f" * 100, 0o644),
    Member("/nix/store/ümlaut", 0o644),
    Member("/nix/store/link", 0o777, kind=b"2", link="t" * 100),
    Member("/nix/store/longlink", 0o777, kind=b"2", link="t" * 101),
    Member("/nix/store/link", 0o777, kind=b"2", link="zurück"),
    Member("file", 0o644, uid=3_000_000),
    Member("file", 0o644, user="u" * 40),
]


@needs("go")
def test_headers_are_those_of_go(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(GO)
    lines = "".join(f"{m.name}\t{m.link}\t{m.uid}\t{m.user}\n" for m in MEMBERS)
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    command = ["go", "run", str(tmp_path / "main.go")]
    done = subprocess.run(command, input=lines.encode(), env=environment, capture_output=True, check=True)
    assert b"".join(headers(member) for member in MEMBERS) + bytes(1024) == done.stdout


def test_what_python_reads_back_is_what_was_written() -> None:
    out = io.BytesIO()
    writer = TarWriter(Sink(out, 1 << 20))
    for member in MEMBERS:
        writer.add(member)
    writer.close()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        found = [(member.name, member.linkname, member.uid, member.uname) for member in archive]
    assert found == [(m.name, m.link, m.uid, m.user) for m in MEMBERS]


def test_a_tree_has_the_same_bytes_whatever_its_times_and_order(tmp_path: Path) -> None:
    archives = []
    for number, names in enumerate((["b", "a", "c/d"], ["c/d", "b", "a"])):
        root = tmp_path / str(number)
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            path.chmod(0o755 if name == "a" else 0o640)
            os.utime(path, (number, number))
        (root / "link").symlink_to("../outside")
        out = io.BytesIO()
        writer = TarWriter(Sink(out, 1 << 20))
        add_tree(writer, str(root))
        writer.close()
        archives.append(out.getvalue())
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as archive:
        modes = {member.name: member.mode for member in archive}
        assert modes == {"a": 0o755, "b": 0o644, "c": 0o755, "c/d": 0o644, "link": 0o777}
        assert archive.getmember("link").linkname == "../outside"


def test_a_special_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is neither a file"):
        add_tree(TarWriter(Sink(io.BytesIO(), 1 << 20)), str(tmp_path))


def test_a_file_that_became_shorter_is_noticed() -> None:
    writer = TarWriter(Sink(io.BytesIO(), 1 << 20))
    with pytest.raises(OSError, match="became shorter"):
        writer.add(Member("file", 0o644, 10), io.BytesIO(b"short"))


def test_a_sink_refuses_more_than_its_limit() -> None:
    sink = Sink(io.BytesIO(), 4)
    sink.write(b"1234")
    with pytest.raises(OverflowError):
        sink.write(b"5")
