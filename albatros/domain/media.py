"""Media types of images, and the size that every registry takes of a manifest."""

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
BYTES = "application/octet-stream"

MAX_MANIFEST = 4 << 20
"""Largest manifest or index in bytes that registries have to take (distribution spec 1.1, "Pushing manifests")."""
