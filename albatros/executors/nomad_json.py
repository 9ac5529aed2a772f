"""What is read out of Nomad's JSON: a value of the expected type, or an empty one where it is another or missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Document = Mapping[str, object]


def mapping(value: object) -> Document:
    """An object, empty when it is none."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> Iterator[Document]:
    """The objects of a list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def within(document: Document, *path: str) -> Document:
    """The object at a path of keys."""
    for key in path:
        document = mapping(document.get(key))
    return document


def text(document: Document, key: str) -> str:
    """A string, empty when it is none."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def number(document: Document, key: str) -> int:
    """A number, 0 when it is none."""
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def words(document: Document, key: str) -> Sequence[str]:
    """The strings of a list."""
    value = document.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
