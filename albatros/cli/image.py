"""`albatros image`: publish an image without a server, and look at published ones."""

from __future__ import annotations

import argparse
from datetime import datetime

_PLATFORM_HELP = (
    "docker-archive or OCI layout, nix2container's JSON, static binary, a directory of these, or - for an archive on "
    "standard input; "
    "PLATFORM= where the file does not tell it"
)
_MOUNT_HELP = "a name at the destinations whose blobs may be taken from there instead of being sent; repeatable"
_ANNOTATION_HELP = "source, revision, version or licenses of the image; repeatable"
_SIGN_HELP = "sign with this private key (ECDSA P-256 in PEM, or cosign.key); its passphrase is in COSIGN_PASSWORD"
_DEST_HELP = "docker://HOST/PREFIX, dir:PATH or s3://BUCKET/PREFIX?endpoint=URL&region=R&s3ForcePathStyle=true"
_REF_HELP = (
    "HOST/NAME:TAG, HOST/NAME@sha256:…, dir:PATH/NAME:TAG or s3://BUCKET/PREFIX/NAME:TAG?endpoint=URL&region=R&…"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `image` with its commands."""
    image = subparsers.add_parser("image", aliases=["container"], help="publish and look at container images")
    commands = image.add_subparsers(metavar="COMMAND", required=True)
    _add_push(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_copy(commands)


def _add_push(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    push = commands.add_parser(
        "push",
        help="publish archives and binaries as one multi-platform image",
        description="Make one multi-platform image of all sources and publish it to every destination. "
        "Every byte is read, compressed and hashed once; a destination that fails does not stop the others.",
    )
    push.add_argument("sources", nargs="+", metavar="[PLATFORM=]SOURCE", help=_PLATFORM_HELP)
    push.add_argument(
        "-t", "--tag", action="append", required=True, metavar="NAME[:TAG]", help="name and tag (latest); repeatable"
    )
    push.add_argument(
        "--to", action="extend", nargs="+", default=[], metavar="DEST", help=f"{_DEST_HELP}; default: the last SOURCE"
    )
    push.add_argument("--mount-from", action="append", default=[], metavar="NAME", help=_MOUNT_HELP)
    push.add_argument("--compression", choices=("gzip", "fast", "zstd"), default="gzip", help="default: gzip")
    push.add_argument("--entrypoint", metavar="PATH", help="where binaries go in the image; default: /bin/NAME")
    push.add_argument("--annotation", action="append", default=[], metavar="KEY=VALUE", help=_ANNOTATION_HELP)
    push.add_argument("--created", type=_moment, metavar="TIME", help="RFC 3339; default: the newest of the sources")
    push.add_argument("--max-size", type=_size, metavar="BYTES", help="most that a source may unpack to, such as 2G")
    push.add_argument("--sign-key", metavar="FILE", help=_SIGN_HELP)
    push.add_argument("--sbom", action="store_true", help="attach a bill of materials (CycloneDX) to each platform")
    push.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    push.add_argument("--json", action="store_true", help="print one JSON object")
    push.set_defaults(func=_push)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser("inspect", help="show a published image: platforms, layers, sizes, attestations")
    inspect.add_argument("reference", metavar="REF", help=_REF_HELP)
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(func=_inspect)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser("verify", help="read a published image whole, and check its signature and every byte")
    verify.add_argument("reference", metavar="REF", help=_REF_HELP)
    verify.add_argument("--key", metavar="FILE", help="public key; the image must have a signature of it")
    verify.add_argument("--name", metavar="HOST/NAME", help="the name it must be signed for; default: that of REF")
    verify.add_argument("--repo", metavar="URL", help="the repo it must be signed for")
    verify.add_argument("--commit", metavar="COMMIT", help="the commit it must be signed for")
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.set_defaults(func=_verify)


def _add_copy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    copy = commands.add_parser(
        "copy",
        help="mirror a published image with its signatures and other proofs",
        description="Copy a published image, all its platforms, signatures and referrers as they are. Digests stay the "
        "same, and so do signatures: verify a mirror with the --name of the original.",
    )
    copy.add_argument("reference", metavar="REF", help=_REF_HELP)
    copy.add_argument("destination", metavar="DEST", help=_DEST_HELP)
    copy.add_argument(
        "-t", "--tag", action="append", default=[], metavar="NAME[:TAG]", help="default: as in REF; repeatable"
    )
    copy.add_argument("--json", action="store_true", help="print one JSON object")
    copy.set_defaults(func=_copy)


def _push(options: argparse.Namespace) -> int:
    from albatros.cli import image_push

    return image_push.run(image_push.parse_request(options))


def _inspect(options: argparse.Namespace) -> int:
    from albatros.cli import image_show

    return image_show.inspect(options.reference, as_json=options.json)


def _verify(options: argparse.Namespace) -> int:
    from albatros.cli import image_keys, image_show
    from albatros.images.trust import Expected

    key = image_keys.read_public_key(options.key)
    expected = Expected(options.name or "", options.repo or "", options.commit or "")
    return image_show.verify(options.reference, key, expected, as_json=options.json)


def _copy(options: argparse.Namespace) -> int:
    from albatros.cli import image_copy

    return image_copy.copy(options.reference, options.destination, options.tag, as_json=options.json)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} names no time zone; add Z for UTC")
    return moment


def _size(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, shift = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 0)
    if not (number.isascii() and number.isdigit() and int(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or 500M, 2G")
    return int(number) << shift
