"""Names of a flake's attributes, in the forms that people, the protocol and Nix's language write them."""

import re

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
PART = re.compile(r"""([A-Za-z_][A-Za-z0-9_'-]*|"(?:[^"\\]|\\.)*")(\.|$)""", re.DOTALL)


def attribute_path(parts: tuple[str, ...]) -> str:
    """`packages.x86_64-linux.hello`; a name that is no plain identifier stands in quotes."""
    return ".".join(part if PLAIN.fullmatch(part) else nix_string(part) for part in parts)


def split_attribute(path: str) -> tuple[str, ...]:
    """The names in an attribute path as `attribute_path` writes it. Raises ValueError."""
    parts, position = [], 0
    while position < len(path):
        match = PART.match(path, position)
        if match is None:
            raise ValueError(f"{path!r} is not an attribute path")
        text = match[1]
        parts.append(re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text.startswith('"') else text)
        position = match.end()
    return tuple(parts)


def nix_selection(parts: tuple[str, ...]) -> str:
    """The names after the dot of a selection in Nix's language, all of them in quotes: none can be a keyword."""
    return ".".join(nix_string(part) for part in parts)


def nix_string(text: str) -> str:
    """A string literal of Nix's language that is exactly `text`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
