"""Telling image archives from every other file, by their bytes alone."""

from __future__ import annotations

import threading

from albatros.domain.references import Digest
from albatros.errors import ImageError, TooLargeError
from albatros.images.base import BlobSource
from albatros.images.streams import BoundedReader, PeekReader, unpacked
from albatros.images.tarstream import RECORD, TarStream, looks_like_tar

_MANIFEST = "manifest.json"


def is_image_archive(blobs: BlobSource, digest: Digest, max_size: int) -> bool:
    """Whether a blob is a docker-archive, packed or not; at most `max_size` unpacked bytes are looked through.

    A tar counts once it holds `manifest.json`, or ends damaged behind a layer: reading that one then says what is
    wrong. Raises NotFoundError or StoreError.
    """
    has_layer = False
    with blobs.open(digest) as raw:
        try:
            stream = PeekReader(BoundedReader(unpacked(raw), max_size, threading.Event()))
            if not looks_like_tar(stream.peek(RECORD)):
                return False
            for member in TarStream(stream):
                if member.name == _MANIFEST:
                    return True
                has_layer = has_layer or member.name.endswith("/layer.tar")
        except (ImageError, TooLargeError):
            return has_layer
    return False
