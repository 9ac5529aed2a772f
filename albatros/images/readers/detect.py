"""Telling image archives from every other file, by their bytes alone."""

from __future__ import annotations

import threading

from albatros.domain.references import Digest
from albatros.errors import ImageError, TooLargeError
from albatros.images.base import BlobSource
from albatros.images.readers import script
from albatros.images.readers.docker_archive import MANIFEST
from albatros.images.readers.oci_layout import MARKER
from albatros.images.streams import BoundedReader, PeekReader, unpacked
from albatros.images.tarstream import RECORD, TarStream, looks_like_tar


def is_image_archive(blobs: BlobSource, digest: Digest, max_size: int, *, was_read: bool = False) -> bool:
    """Whether a blob is an image archive, packed or not; at most `max_size` unpacked bytes are looked through.

    Of one that `was_read` as a source before, the beginning says it: many archives have their `manifest.json` last.

    A tar counts once it holds `manifest.json` or `oci-layout`, or ends damaged behind a layer; so does the script that
    prints one: reading these then says what is wrong. Raises NotFoundError or StoreError.
    """
    has_layer = False
    with blobs.open(digest) as raw:
        try:
            stream = PeekReader(BoundedReader(unpacked(raw), max_size, threading.Event()))
            head = stream.peek(script.HEAD)
            if not looks_like_tar(head[:RECORD]):
                return script.prints_image(head)
            if was_read:
                return True
            for member in TarStream(stream):
                if member.name in (MANIFEST, MARKER):
                    return True
                has_layer = has_layer or member.name.endswith("/layer.tar")
        except (ImageError, TooLargeError):
            return has_layer
    return False
