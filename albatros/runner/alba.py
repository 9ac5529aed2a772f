"""`alba` inside a script: `alba container push -t NAME:TAG DIR REGISTRY` publishes through the server.

It uploads what DIR holds by digest and asks the server to publish that as one image, with the token of the script's own
Attempt: the server decides by its settings what may go where, and nobody here has a credential of the registry. Exit
status: 0 published, 1 it failed, 2 wrong use.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple, cast

from albatros.runner.archive import CHUNK, Sink, TarWriter, add_tree
from albatros.runner.failure import JobFailedError, LeaseLostError
from albatros.runner.outputs import FileUpload
from albatros.runner.protocol import Server

DONE, FAILED, WRONG_USE = 0, 1, 2
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
LAYOUT = ("oci-layout", "index.json")
BINARIES = "linux"
STORE = "/nix/store/"
MOST_LINKS = 40
MOST_BYTES = 1 << 40
"""The server has a limit of its own; this one ends a tar that grows while it is written."""
FIRST_PAUSE, LONGEST_PAUSE, SPEAK_SECONDS = 0.2, 2.0, 60.0


class WrongUseError(Exception):
    """The arguments name nothing that could be published."""


class Part(NamedTuple):
    """A file to publish: its name, which says its platform where nothing in it does, and where it lies."""

    file: str
    path: str


def main(arguments: list[str]) -> int:
    """Run the command; its exit status."""
    options = _parse(arguments)
    try:
        server = _server(os.environ.get("ALBATROS_JOB", ""))
        *sources, registry = [*options.sources, options.to] if options.to else options.sources
        parts = _all_parts(sources)
        with tempfile.TemporaryDirectory(prefix="alba-") as scratch:
            uploaded = _upload(server, parts, scratch)
        return max([_publish(server, registry, *_split(tag), uploaded) for tag in options.tag])
    except WrongUseError as error:
        print(f"alba: {error}", file=sys.stderr)
        return WRONG_USE
    except (JobFailedError, LeaseLostError, OSError) as error:
        print(f"alba: {error}", file=sys.stderr)
        return FAILED


def _parse(arguments: list[str]) -> argparse.Namespace:
    top = argparse.ArgumentParser(prog="alba", description="Publish images from a script, through Albatros.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    container = commands.add_parser("container", aliases=["image"], help="container images")
    push = container.add_subparsers(metavar="COMMAND", required=True).add_parser("push", help="publish an image")
    push.add_argument("-t", "--tag", action="append", required=True, metavar="NAME:TAG", help="repeatable")
    push.add_argument("--to", metavar="REGISTRY", help="the same as REGISTRY at the end")
    push.add_argument(
        "sources",
        nargs="+",
        metavar="DIR… REGISTRY",
        help="a directory with linux.ARCH.tar.gz or linux/ARCH/BINARY, an archive or an OCI layout; then the name "
        "or address of a registry that the server knows",
    )
    return top.parse_args(arguments)


def _server(path: str) -> Server:
    try:
        with open(path, encoding="ascii") as file:
            job = cast("dict[str, str]", json.load(file))
        return Server(job["url"], job["token"], job["nonce"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUseError(f"this is no script that Albatros runs ({error}); use `albatros image push`") from error


def _split(text: str) -> tuple[str, str]:
    name, _, tag = text.partition(":")
    return name, tag or "latest"


def _all_parts(sources: list[str]) -> list[Part]:
    parts = [part for source in sources for part in find_parts(source)]
    if not parts:
        raise WrongUseError(f"{' '.join(sources) or 'no source'} holds no image; give a directory with archives")
    return parts


def find_parts(source: str) -> list[Part]:
    """The files of a source: a directory of archives and binaries, one archive, or an OCI layout."""
    path, name = physical(source), os.path.basename(source.rstrip("/"))
    if not os.path.exists(path):
        raise WrongUseError(f"{source} is not there")
    if not os.path.isdir(path) or _is_layout(path):
        return [Part(name, path)]
    found = []
    for entry in sorted(os.listdir(path)):
        inner = physical(os.path.join(path, entry))
        if (entry.endswith(SUFFIXES) and os.path.isfile(inner)) or _is_layout(inner):
            found.append(Part(entry, inner))
    return [*found, *_binaries(path)]


def _binaries(directory: str) -> Iterator[Part]:
    """`linux/ARCH/BINARY` and `linux/ARCH/VARIANT/BINARY`."""
    top = physical(os.path.join(directory, BINARIES))
    for folder, inner, files in os.walk(top):
        depth = os.path.relpath(folder, top).count("/")
        if depth >= 1:
            inner.clear()
        for file in sorted(files) if folder != top else ():
            yield Part(os.path.join(BINARIES, os.path.relpath(folder, top), file), physical(os.path.join(folder, file)))


def _is_layout(path: str) -> bool:
    return all(os.path.isfile(os.path.join(path, name)) for name in LAYOUT)


def physical(path: str) -> str:
    """Where a path leads: a link into the Nix store is followed into the runner's own, wherever that lies."""
    _, _, parameters = os.environ.get("NIX_REMOTE", "").partition("?root=")
    root = parameters.partition("&")[0].rstrip("/")
    for _ in range(MOST_LINKS):
        if path.startswith(STORE):
            path = root + path
        if not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise WrongUseError(f"{path} is a link that leads in a circle")


def _upload(server: Server, parts: list[Part], scratch: str) -> list[dict[str, object]]:
    """Have every file at the server; as the request names them."""
    files = [_packed(part, os.path.join(scratch, str(number))) for number, part in enumerate(parts)]
    hashed = [(part.file, *_digest(part.path), part.path) for part in files]
    with _alone():
        missing = server.missing_blobs([(digest, size) for _, digest, size, _ in hashed])
        for file, digest, size, path in hashed:
            if digest in missing:
                print(f"uploading {file}, {size} bytes", file=sys.stderr, flush=True)
                server.put_blob(digest, FileUpload(path, size))
                missing.discard(digest)
    return [{"file": file, "digest": digest, "size": size} for file, digest, size, _ in hashed]


def _packed(part: Part, path: str) -> Part:
    """A directory, which is an OCI layout, as one tar."""
    if not os.path.isdir(part.path):
        return part
    with open(path, "wb") as file:
        writer = TarWriter(Sink(file, MOST_BYTES))
        add_tree(writer, part.path)
        writer.close()
    return part._replace(path=path)


def _digest(path: str) -> tuple[str, int]:
    sha256, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            sha256.update(data)
            size += len(data)
    return f"sha256:{sha256.hexdigest()}", size


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The server takes one upload of an Attempt at a time: two of a script would end each other."""
    with open(os.environ["ALBATROS_JOB"], "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _publish(server: Server, registry: str, name: str, tag: str, parts: list[dict[str, object]]) -> int:
    asked = server.ask_image({"registry": registry, "name": name, "tag": tag, "parts": parts})
    request_id = asked.document.get("id")
    if asked.status != 202 or not isinstance(request_id, int):
        print(f"alba: {asked.detail}", file=sys.stderr)
        return WRONG_USE if asked.status == 400 else FAILED
    pause, spoken = FIRST_PAUSE, time.monotonic()
    while True:
        answer = server.image_outcome(request_id)
        state, message = str(answer.document.get("state", "")), str(answer.document.get("message", ""))
        if answer.status != 200 or state == "failed":
            print(f"alba: {message if answer.status == 200 else answer.detail}", file=sys.stderr)
            return FAILED
        if state != "waiting":
            break
        if time.monotonic() - spoken > SPEAK_SECONDS:
            # A Job that says nothing for long is ended.
            print(f"{name}:{tag}: {message}", file=sys.stderr, flush=True)
            spoken = time.monotonic()
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
    if message:
        print(f"{name}:{tag}: {message}", file=sys.stderr)
    print(answer.document.get("reference", ""), flush=True)
    return DONE
