"""The badge of a repo: a small SVG that other sites may show. It says no more than a caller may see."""

from __future__ import annotations

from html import escape

from albatros.domain.states import BuildState

_CHARACTER_WIDTH = 6.6
_LABEL = "albatros"
_GREEN, _RED, _AMBER, _BLUE, _GREY = "#1a7f4b", "#b3261e", "#9a6700", "#2563a8", "#5b6470"
_COLOURS = {
    BuildState.WAITING_APPROVAL: _GREY,
    BuildState.QUEUED: _BLUE,
    BuildState.EVALUATING: _BLUE,
    BuildState.RUNNING: _BLUE,
    BuildState.PUBLISHING: _BLUE,
    BuildState.SUCCEEDED: _GREEN,
    BuildState.FAILED: _RED,
    BuildState.ERRORED: _AMBER,
    BuildState.CANCELLED: _GREY,
    BuildState.SUPERSEDED: _GREY,
    BuildState.SKIPPED: _GREY,
}


def badge(state: BuildState | None) -> str:
    """An SVG that says how a branch stands; None for what there is not, or is not to be seen."""
    word = state.value if state is not None else "unknown"
    colour = _COLOURS[state] if state is not None else _GREY
    left, right = _width(_LABEL), _width(word)
    text = escape(f"{_LABEL}: {word}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{text}">'
        f"<title>{text}</title>"
        f'<rect width="{left + right}" height="20" rx="3" fill="#30363d"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{right - 3}z" fill="{colour}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2}" y="14">{_LABEL}</text><text x="{left + right / 2}" y="14">{escape(word)}</text>'
        "</g></svg>"
    )


def _width(text: str) -> int:
    return round(len(text) * _CHARACTER_WIDTH) + 12
