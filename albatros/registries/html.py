"""The pages of a static registry as HTML: no script, nothing from elsewhere, the same bytes for the same tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from albatros.registries.reach import attached_to
from albatros.registries.summary import TagSummary

GENERATOR = '<meta name="generator" content="albatros">'
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
{generator}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
section {{ border-top: 1px solid #8886; padding: .5rem 0 }}
h2 {{ font-size: 1.1rem; margin: .5rem 0 }}
code {{ overflow-wrap: anywhere }}
table {{ border-spacing: 0 }}
td, th {{ text-align: left; font-weight: normal; padding: 0 2rem 0 0 }}
td + td {{ text-align: right; font-variant-numeric: tabular-nums }}
</style>
<h1>{title}</h1>
{body}
</html>
"""
_HOST = "<i>HOST</i>"
_HINT = f"<p>{_HOST} is the name of this site, as the address of this page shows it.</p>"


def list_page(names: Sequence[str]) -> str:
    """The page that lists the images."""
    items = "\n".join(f'<li><a href="images/{escape(name)}/index.html">{escape(name)}</a></li>' for name in names)
    return _page("Images", f"<ul>\n{items}\n</ul>" if names else "<p>There is no image yet.</p>")


def image_page(name: str, tags: Iterable[TagSummary]) -> str:
    """The page of one image: a section for each digest with all its tags, the newest first."""
    by_digest: dict[str, list[TagSummary]] = {}
    for tag in tags:
        # A signature is no image that anybody would run.
        if attached_to(tag.tag) is None:
            by_digest.setdefault(tag.digest, []).append(tag)
    ordered = sorted(by_digest.items(), key=lambda item: (item[1][0].created, item[0]), reverse=True)
    sections = "\n".join(_section(name, same) for _, same in ordered)
    up = "../" * (name.count("/") + 2)
    return _page(name, f'<p><a href="{up}index.html">All images</a></p>\n{_HINT}\n{sections}')


def _section(name: str, same: Sequence[TagSummary]) -> str:
    first = same[0]
    tags = sorted(tag.tag for tag in same)
    created = f"<p>made {escape(first.created)}</p>\n" if first.created else ""
    rows = "\n".join(
        f"<tr><td>{escape(platform.platform) or 'one platform'}</td><td>{_bytes(platform.size)}</td></tr>"
        for platform in first.platforms
    )
    pull = f"docker pull {_HOST}/{escape(name)}:{escape(tags[0])}"
    return (
        f"<section>\n<h2>{escape(', '.join(tags))}</h2>\n{created}<p><code>{pull}</code></p>\n"
        f"<p><code>{escape(first.digest)}</code></p>\n<table>\n{rows}\n</table>\n</section>"
    )


def _page(title: str, body: str) -> str:
    return _PAGE.format(generator=GENERATOR, title=escape(title), body=body)


def _bytes(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):  # noqa: B007 - the unit at which the loop ends
        if value < 1024:
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
