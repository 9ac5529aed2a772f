"""The layout of a static registry: its keys and the headers that clients need, in one table.

Clients ask `/v2/…` of a plain file server and take a manifest's type from Content-Type alone, so the headers matter as
much as the bytes. `headers.json` and the web server fragments are made from RULES; nothing else knows a header.
A manifest that is not an index has a second copy, its shadow, because one URL pattern can have but one type.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from albatros.domain import media
from albatros.domain.references import Digest, is_digest
from albatros.errors import RegistryError, UsageError

PING_KEY = "v2/index.html"
LIST_KEY = "index.html"
"""The page that lists the images."""
_PAGE_FILE = "index.html"
_SUMMARY_FILE = "_summary"
"""No part of a name begins with `_`."""
PRIVATE = ".albatros"
"""Leases, tombstones, shadows, temporary files and the table of headers; no client asks for them."""
LEASES = f"{PRIVATE}/leases/"
TOMBSTONES = f"{PRIVATE}/tombstones/"
REFERRERS = f"{PRIVATE}/referrers/"
PAGES = f"{PRIVATE}/pages/"
TEMPORARY = f"{PRIVATE}/unfinished/"
SHADOWS = f"{PRIVATE}/shadows"
_IMMUTABLE = "public, max-age=31536000, immutable"
_CHANGING = "no-cache"
_RESERVED = frozenset({"manifests", "blobs", "tags", "referrers", _PAGE_FILE})
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Headers:
    """What a server sends with an object."""

    content_type: str
    cache_control: str = _CHANGING


@dataclass(frozen=True, slots=True)
class Rule:
    """Headers of every URL path that `path` matches; the first rule that applies wins.

    `file` is the file to send instead of the path's own; a rule with `shadow` applies where that directory holds a file
    of the same path, which is sent.
    """

    path: str
    headers: Headers
    file: str = ""
    shadow: str = ""


_DIGEST = "sha256:[0-9a-f]{64}"
RULES = (
    Rule("^/v2/$", Headers(_JSON), file=PING_KEY),
    Rule(f"^/v2/.+/manifests/{_DIGEST}$", Headers(media.MANIFEST, _IMMUTABLE), shadow=SHADOWS),
    Rule(f"^/v2/.+/manifests/{_DIGEST}$", Headers(media.INDEX, _IMMUTABLE)),
    Rule("^/v2/.+/manifests/[^/]+$", Headers(media.MANIFEST), shadow=SHADOWS),
    Rule("^/v2/.+/manifests/[^/]+$", Headers(media.INDEX)),
    Rule(f"^/v2/.+/blobs/{_DIGEST}$", Headers(media.BYTES, _IMMUTABLE)),
    Rule("^/v2/.+/tags/list$", Headers(_JSON)),
    Rule(f"^/v2/.+/referrers/{_DIGEST}$", Headers(media.INDEX)),
    Rule("^/$", Headers(_HTML), file=LIST_KEY),
    Rule("^/(images/.+/)?index[.]html$", Headers(_HTML)),
)


def check_static_name(name: str) -> str:
    """Give `name` back. Raises UsageError for one whose keys could be taken for another's."""
    reserved = _RESERVED.intersection(name.split("/"))
    if reserved:
        raise UsageError(f"{name!r} cannot be in a static registry: {min(reserved)!r} is a word of its layout")
    return name


def blob_key(name: str, digest: Digest) -> str:
    """Where a blob is."""
    return f"v2/{name}/blobs/{digest}"


def manifests_prefix(name: str) -> str:
    """What the keys of a name's manifests begin with."""
    return f"v2/{name}/manifests/"


def manifest_key(name: str, reference: str) -> str:
    """Where a manifest is, by tag or digest."""
    return manifests_prefix(name) + reference


def tags_key(name: str) -> str:
    """Where the list of tags is."""
    return f"v2/{name}/tags/list"


def referrers_key(name: str, digest: Digest) -> str:
    """Where the index of what refers to a manifest is."""
    return f"v2/{name}/referrers/{digest}"


def referrer_markers(name: str, subject: Digest) -> str:
    """What the keys begin with that mark who refers to a manifest; each ends with a referrer's digest."""
    return f"{REFERRERS}{name}/{subject}/"


def referrer_marker_key(name: str, subject: Digest, referrer: Digest) -> str:
    """Where it is marked that one manifest refers to another; the marker holds the descriptor of the first."""
    return referrer_markers(name, subject) + referrer


def page_key(name: str) -> str:
    """Where the page of a name is."""
    return f"images/{name}/{_PAGE_FILE}"


def summary_key(name: str) -> str:
    """Where it is kept what the page of a name was made from."""
    return f"{PAGES}{name}/{_SUMMARY_FILE}"


def summarized(key: str) -> str:
    """The name whose summary has this key."""
    return key.removeprefix(PAGES).removesuffix(f"/{_SUMMARY_FILE}")


def manifest_headers(reference: str, media_type: str) -> Headers:
    """The headers of a manifest. Raises RegistryError for a type that the layout has no rule for."""
    if media_type not in (media.INDEX, media.MANIFEST):
        raise RegistryError(f"a static registry holds OCI manifests and indexes, not {media_type!r}")
    return Headers(media_type, _IMMUTABLE if is_digest(reference) else _CHANGING)


BLOB_HEADERS = Headers(media.BYTES, _IMMUTABLE)
JSON_HEADERS = Headers(_JSON)
INDEX_HEADERS = Headers(media.INDEX)
PAGE_HEADERS = Headers(_HTML)


def find_rules(path: str) -> list[Rule]:
    """The rules for a URL path in the order in which they are to be tried."""
    return [rule for rule in RULES if re.search(rule.path, path)]


def needs_shadow(key: str, headers: Headers) -> bool:
    """True for an object that the last of its rules would send with the wrong type."""
    rules = find_rules(f"/{key}")
    return len(rules) > 1 and rules[-1].headers.content_type != headers.content_type


def headers_json() -> str:
    """RULES for programs: the table that a web server in front of the directory has to follow."""
    rules = [
        {
            "path": rule.path,
            "file": rule.file,
            "shadow": rule.shadow,
            "headers": {"Content-Type": rule.headers.content_type, "Cache-Control": rule.headers.cache_control},
        }
        for rule in RULES
    ]
    about = "The first rule whose path matches wins; with a shadow, only if that directory holds the path too."
    return json.dumps({"version": 1, "about": about, "rules": rules}, indent=1) + "\n"


def nginx_fragment() -> str:
    """RULES as nginx locations, for a `server` whose `root` is the directory."""
    lines = [f"location /{PRIVATE}/ {{ return 404; }}"]
    for number, rule in enumerate(RULES):
        follows_shadow = number > 0 and bool(RULES[number - 1].shadow)
        where = f"@albatros{number}" if follows_shadow else f'~ "{rule.path}"'
        otherwise = f"@albatros{number + 1}" if rule.shadow else "=404"
        file = f"/{rule.file}" if rule.file else f"/{rule.shadow}$uri" if rule.shadow else "$uri"
        lines.append(
            f'location {where} {{ types {{}} default_type "{rule.headers.content_type}"; '
            f'add_header Cache-Control "{rule.headers.cache_control}"; try_files {file} {otherwise}; }}'
        )
    return "\n".join(lines) + "\n"


def caddy_fragment() -> str:
    """RULES as a Caddy `route`, for a site whose `root` is the directory."""
    lines = ["route {", f"\trespond /{PRIVATE}/* 404"]
    for number, rule in enumerate(RULES):
        target = f"/{rule.file}" if rule.file else f"/{rule.shadow}{{path}}" if rule.shadow else "{path}"
        # Without the `file` condition, a 404 would be sent with headers that let it be cached for ever.
        lines += [
            f"\t@albatros{number} {{",
            f"\t\tpath_regexp {rule.path}",
            f"\t\tfile {target}",
            "\t}",
            f"\thandle @albatros{number} {{",
            f'\t\theader Content-Type "{rule.headers.content_type}"',
            f'\t\theader Cache-Control "{rule.headers.cache_control}"',
            f"\t\trewrite * {target}",
            "\t\tfile_server",
            "\t}",
        ]
    return "\n".join([*lines, "\trespond 404", "}"]) + "\n"
