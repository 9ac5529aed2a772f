"""A script where an image was expected: `streamLayeredImage` of nixpkgs builds one that prints the archive."""

from __future__ import annotations

import re

from albatros.errors import ImageError

MAGIC = b"#!"
HEAD = 4096
_PRINTS_IMAGE = re.compile(rb"/nix/store/[a-z0-9]{32}-stream[-_.a-zA-Z0-9]*")


def prints_image(head: bytes) -> bool:
    """Whether a file that begins so is a script of `streamLayeredImage`."""
    return head.startswith(MAGIC) and _PRINTS_IMAGE.search(head) is not None


def refused(label: str) -> ImageError:
    """The error that says how its archive is had."""
    return ImageError(
        "it is a script and no image archive. If streamLayeredImage built it, pipe what it prints: "
        f"`{label if '/' in label else './result'} | albatros image push … -`; in a flake, keep that as a file: "
        '`pkgs.runCommand "image.tar" { } "${stream} > $out"`, with `stream` the derivation of the script'
    )
