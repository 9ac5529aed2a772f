"""Addresses of a place in an S3 bucket: `s3://BUCKET/PREFIX?endpoint=URL&region=R&s3ForcePathStyle=true`.

The form of the first Albatros and of Go's blob URLs. An address never holds a credential, so it may be shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from albatros.errors import UsageError

FORM = "s3://BUCKET/PREFIX?endpoint=URL&region=REGION&s3ForcePathStyle=true"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_REGION = re.compile(r"[A-Za-z0-9-]{1,60}")
_OPTIONS = ("endpoint", "region", "s3ForcePathStyle")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket and what its keys begin with; `endpoint` is an origin (empty: AWS), `region` may be empty.

    `path_style` puts the bucket into the path of requests, not into the host.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool = True

    @classmethod
    def parse(cls, text: str) -> S3Location:
        """Read an address. Raises UsageError, which repeats nothing that could be a secret."""
        place, _, query = text.removeprefix("s3://").partition("?")
        bucket, _, prefix = place.partition("/")
        prefix = prefix.strip("/")
        if not text.startswith("s3://") or not _BUCKET.fullmatch(bucket):
            raise UsageError(f"an s3 address begins with the name of a bucket; write {FORM}")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise UsageError(f"s3://{bucket}/… has an unusable prefix; use letters, digits, '.', '_', '-' and '/'")
        options = _options(bucket, query)
        endpoint = _endpoint(bucket, options.get("endpoint", ""))
        region = options.get("region", "")
        if region and not _REGION.fullmatch(region):
            raise UsageError(f"s3://{bucket} has an unusable region; Garage's default is region=garage")
        # An address without an endpoint is at AWS, which wants the bucket in the host.
        flag = options.get("s3ForcePathStyle", "true" if endpoint else "false")
        if flag not in _FLAGS:
            raise UsageError(f"s3://{bucket}: write s3ForcePathStyle=true or s3ForcePathStyle=false")
        return cls(bucket, prefix, endpoint, region, _FLAGS[flag])

    @property
    def address(self) -> str:
        """What stands before `/NAME:TAG` in a reference for people."""
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def host(self) -> str:
        """Who is asked, for errors."""
        return urlsplit(self.endpoint).netloc or "AWS"

    def __str__(self) -> str:
        options = {"endpoint": self.endpoint, "region": self.region}
        options |= {"s3ForcePathStyle": str(self.path_style).lower()} if self.endpoint else {}
        query = urlencode({key: value for key, value in options.items() if value}, quote_via=quote, safe=":/")
        return self.address + (f"?{query}" if query else "")


def _options(bucket: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if unknown := sorted(set(options).difference(_OPTIONS)):
        raise UsageError(f"s3://{bucket} has no option {unknown[0][:40]!r}; there are {', '.join(_OPTIONS)}")
    if len(options) < len(pairs):
        raise UsageError(f"s3://{bucket} has an option twice; write {FORM}")
    return options


def _endpoint(bucket: str, text: str) -> str:
    if not text:
        return ""
    unusable = UsageError(f"s3://{bucket} has an unusable endpoint; write endpoint=https://HOST[:PORT], without a path")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise unusable from None
    if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise unusable
    return f"{parts.scheme}://{parts.netloc.lower()}"
