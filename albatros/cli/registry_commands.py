"""What `albatros registry ls` and `albatros registry gc` do."""

from __future__ import annotations

from datetime import timedelta

from albatros.cli import DONE
from albatros.cli.image_target import open_target
from albatros.cli.output import note, print_json, print_table, size
from albatros.domain.references import RegistryKind, RegistryUrl, check_name
from albatros.errors import NotFoundError, UsageError
from albatros.registries.base import Registry
from albatros.registries.collect import collect
from albatros.registries.opening import open_objects
from albatros.registries.static_tags import list_names
from albatros.registries.summary import TagSummary, summarize


def list_registry(destination: str, name: str | None, *, as_json: bool) -> int:
    """Print the names at a static registry, or the tags of one name at any."""
    url = RegistryUrl.parse(destination)
    if name is not None:
        return _list_tags(url, check_name(name), as_json=as_json)
    if url.kind is RegistryKind.DOCKER:
        raise UsageError(f"{url} cannot be asked for its images; name one: albatros registry ls {url} NAME")
    names = list_names(open_objects(url))
    if as_json:
        print_json([{"name": found, "tags": count} for found, count in names.items()])
    else:
        print_table(["NAME", "TAGS"], [[found, count] for found, count in names.items()])
    return DONE


def collect_registry(destination: str, grace: timedelta, *, dry_run: bool, as_json: bool) -> int:
    """Collect once; print what went, an object a line."""
    url = RegistryUrl.parse(destination)
    report = collect(open_objects(url), grace=grace, dry_run=dry_run)
    if as_json:
        deleted = [{"key": item.key, "size": item.size} for item in report.deleted]
        print_json({"dry_run": dry_run, "deleted": deleted, "bytes": report.size, "left": report.left})
        return DONE
    for item in report.deleted:
        print(item.key)
    verb = "would go" if dry_run else "went"
    note(f"{url}: {len(report.deleted)} objects with {size(report.size)} {verb}")
    if report.left:
        note(f"{url}: {report.left} more are left for the next run")
    return DONE


def _list_tags(url: RegistryUrl, name: str, *, as_json: bool) -> int:
    with open_target(url) as registry:
        found = [_summary(registry, name, tag) for tag in registry.list_tags(name)]
    tags = [summary for summary in found if summary is not None]
    if not tags:
        raise NotFoundError(f"{url} has no image {name}, or none with a tag")
    if as_json:
        print_json([tag.as_json() for tag in tags])
        return DONE
    rows = [
        [tag.tag, ", ".join(p.platform for p in tag.platforms), size(tag.size), tag.created, tag.digest] for tag in tags
    ]
    print_table(["TAG", "PLATFORMS", "SIZE", "CREATED", "DIGEST"], rows)
    return DONE


def _summary(registry: Registry, name: str, tag: str) -> TagSummary | None:
    def read(reference: str) -> bytes | None:
        manifest = registry.get_manifest(name, reference)
        return manifest.data if manifest else None

    return summarize(read, tag)
