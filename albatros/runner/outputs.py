"""Uploads what a build made: the files that the order names, by digest, skipping those that the Repo has already.

A directory becomes its named binaries, or one deterministic tar; a nix2container description becomes a docker-archive;
any other file goes as it is. The server decides for itself what a file is.
"""

import base64
import hashlib
import json
import os
import stat
from typing import BinaryIO, NamedTuple, cast

from albatros.runner.archive import CHUNK, Sink, TarWriter, add_tree
from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.nix import Nix
from albatros.runner.nix2container import JSON_LIMIT, read_image, write_archive
from albatros.runner.order import BuildOrder
from albatros.runner.storefiles import StoreFiles
from albatros.runner.work import Work

CLOSURE_LIMIT = 10_000
NIX_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


class FileUpload:
    """A file as a request's body."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size

    def open(self) -> BinaryIO:
        """Open it at its start."""
        return open(self.path, "rb")


class OutputFile(NamedTuple):
    """A file that is to be at the server."""

    path: str
    kind: str
    digest: str
    executable: bool
    upload: FileUpload

    def document(self) -> dict[str, object]:
        """As the runner protocol writes it."""
        fields = {"path": self.path, "kind": self.kind, "digest": self.digest}
        return {**fields, "size": self.upload.size, "executable": self.executable}


def send_outputs(work: Work, nix: Nix, order: BuildOrder, outputs: dict[str, str]) -> list[dict[str, object]]:
    """Upload the outputs' files; the `outputs` of the result. Raises JobFailedError."""
    return _Outputs(work, nix, order).send(outputs)


class _Outputs:
    def __init__(self, work: Work, nix: Nix, order: BuildOrder) -> None:
        self._work, self._nix, self._order = work, nix, order
        self._store = StoreFiles(nix.root)
        self._left = work.order.limits.output_bytes

    def send(self, outputs: dict[str, str]) -> list[dict[str, object]]:
        files = {name: self._files(path) for name, path in sorted(outputs.items())}
        found = {file.path for listed in files.values() for file in listed}
        for binary in self._order.binaries:
            if binary not in found:
                text = (
                    f"{self._order.attribute} was built and has no file {binary!r}; correct `binary` in .albatros.toml."
                )
                raise JobFailedError(Reason.BUILD_FAILED, text)
        self._upload([file for listed in files.values() for file in listed])
        return [
            {
                "output": name,
                "store_path": outputs[name],
                **self._path_info(outputs[name]),
                "files": [file.document() for file in listed],
            }
            for name, listed in files.items()
        ]

    def _files(self, store_path: str) -> list[OutputFile]:
        physical = self._store.physical(store_path)
        mode = os.stat(physical).st_mode
        if stat.S_ISDIR(mode):
            named = [
                self._plain(store_path, name, "binary") for name in self._order.binaries if self._has(store_path, name)
            ]
            if self._order.binaries or not self._order.keep:
                return named
            return [self._tar(physical)]
        if not stat.S_ISREG(mode):
            raise JobFailedError(Reason.BUILD_FAILED, f"{store_path} is neither a file nor a directory.")
        if not self._order.keep and not self._order.binaries:
            return []
        image = self._image(store_path)
        return [self._archive(image) if image is not None else self._plain(store_path, "", "file")]

    def _has(self, store_path: str, name: str) -> bool:
        if name.startswith("/") or ".." in name.split("/"):
            raise JobFailedError(Reason.BUILD_FAILED, f"The binary {name!r} has to be a path inside the output.")
        return os.path.lexists(f"{self._store.physical(store_path)}/{name}")

    def _image(self, store_path: str) -> dict[str, object] | None:
        with self._store.open(store_path) as file:
            first = file.read(1)
            return read_image(first + file.read(JSON_LIMIT)) if first == b"{" else None

    def _plain(self, store_path: str, name: str, kind: str) -> OutputFile:
        path = f"{store_path}/{name}" if name else store_path
        sha256, size = hashlib.sha256(), 0
        with self._store.open(path) as file:
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
            while data := file.read(CHUNK):
                self._work.children.check()
                sha256.update(data)
                size += len(data)
        self._account(size)
        upload = FileUpload(self._store.physical(path), size)
        return OutputFile(name, kind, f"sha256:{sha256.hexdigest()}", executable, upload)

    def _tar(self, physical: str) -> OutputFile:
        path = self._work.path("output.tar")
        with open(path, "wb") as file:
            sink = Sink(file, self._left)
            writer = TarWriter(sink)
            try:
                add_tree(writer, physical)
                writer.close()
            except OverflowError as error:
                raise self._too_large() from error
        self._account(sink.size)
        return OutputFile("", "directory-tar", sink.digest, False, FileUpload(path, sink.size))

    def _archive(self, image: dict[str, object]) -> OutputFile:
        path = self._work.path("image.tar")
        with open(path, "wb") as file:
            try:
                sink = write_archive(image, self._store, self._work.folder("tmp"), file, self._left)
            except OverflowError as error:
                raise self._too_large() from error
        self._account(sink.size)
        return OutputFile("", "image-archive", sink.digest, False, FileUpload(path, sink.size))

    def _account(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._too_large()

    def _too_large(self) -> JobFailedError:
        limit = self._work.order.limits.output_bytes
        text = f"The outputs of {self._order.attribute} have more than {limit} bytes, the limit of one Job."
        return JobFailedError(Reason.BUILD_FAILED, text)

    def _upload(self, files: list[OutputFile]) -> None:
        by_digest = {file.digest: file for file in files}
        if not by_digest:
            return
        missing = self._work.server.missing_blobs([(digest, file.upload.size) for digest, file in by_digest.items()])
        for digest, file in by_digest.items():
            self._work.children.check()
            if digest in missing:
                self._work.log.line(f"uploading {file.path or file.kind}, {file.upload.size} bytes, {digest}")
                self._work.server.put_blob(digest, file.upload)
            else:
                self._work.log.line(f"{file.path or file.kind} is at the server already, {digest}")

    def _path_info(self, store_path: str) -> dict[str, object]:
        entries = parse_path_info(self._nix.must(["path-info", "-rS", "--json", store_path]))
        own = next((entry for entry in entries if entry["path"] == store_path), None)
        if own is None:
            raise JobFailedError(Reason.DRIVER, f"Nix does not know {store_path}, which it has just built.")
        numbers = {"nar_hash": own["nar_hash"], "nar_size": own["nar_size"]}
        return {**numbers, "closure": entries[:CLOSURE_LIMIT]}


def parse_path_info(text: str) -> list[dict[str, object]]:
    """`nix path-info --json`: a list before Nix 2.19, an object keyed by path since; sorted by path."""
    value: object = json.loads(text)
    if isinstance(value, dict):
        entries = [{**cast("dict[str, object]", entry), "path": path} for path, entry in value.items()]
    else:
        entries = cast("list[dict[str, object]]", value)
    found = [
        {"path": entry["path"], "nar_hash": hex_hash(str(entry["narHash"])), "nar_size": entry["narSize"]}
        for entry in entries
    ]
    return sorted(found, key=lambda entry: str(entry["path"]))


def hex_hash(text: str) -> str:
    """`sha256:` and 64 hex digits, from Nix's SRI or base-32 form. Raises ValueError for another form."""
    if text.startswith("sha256-"):
        return "sha256:" + base64.b64decode(text[7:]).hex()
    algorithm, _, digits = text.partition(":")
    if algorithm == "sha256" and len(digits) == 64:
        return text
    if algorithm == "sha256" and len(digits) == 52:
        number = 0
        for digit in digits:
            number = number * 32 + NIX_BASE32.index(digit)
        return "sha256:" + number.to_bytes(33, "little")[:32].hex()
    raise ValueError(f"{text!r} is not a SHA-256 of Nix")
