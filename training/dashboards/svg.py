"""Curves and bars as SVG that stands in the page itself: no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0b6e99", "#b3541e", "#3b7d3a", "#7a4b9d", "#8a5a00", "#a12a5e", "#4a6fa5", "#5c5c5c")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 230, 58, 26, 10


def colour(place: int) -> str:
    """Return the colour of the run at a place; after eight they come round again."""
    return _COLOURS[place % len(_COLOURS)]


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """Return curves by name over their steps, each with the colour of its place; a curve of one point is a dot."""
    points = [p for curve in curves.values() for p in curve]
    if not points:
        return '<p class="none">nothing yet</p>'
    left, right = _ends([x for x, _ in points])
    low, high = _ends([y for _, y in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - 8)
        return across, _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    drawn = []
    for place, (name, curve) in enumerate(curves.items()):
        if not curve:
            continue
        tip = f"<title>{escape(name)}: {curve[-1][1]:.5g} at step {curve[-1][0]:.0f}</title>"
        if len(curve) == 1:
            x, y = at(*curve[0])
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(place)}">{tip}</circle>')
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in curve))
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(place)}" stroke-width="1.5">{tip}</polyline>'
        )
    base = _HEIGHT - _BOTTOM
    axes = (
        f'<path d="M{_LEFT} {_TOP}V{base}H{_WIDTH - 8}" fill="none" stroke="#999"/>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 9}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">step {left:.0f}</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 8}" text-anchor="end">{right:.0f}</text>'
    )
    return _svg(_HEIGHT, title, axes + "".join(drawn))


def bars(values: Mapping[str, tuple[float, float | None, float | None]], title: str) -> str:
    """Return a bar for each name: (value, low, high), where low and high are an interval or None."""
    if not values:
        return '<p class="none">nothing yet</p>'
    most = max([v for value in values.values() for v in value if v is not None] + [1e-12])
    left, width, step = 130, _WIDTH - 130 - 90, 26
    drawn = []
    for place, (name, (value, low, high)) in enumerate(values.items()):
        y = 8 + place * step
        long = max(0.0, value) / most * width
        said = f"{value:.4g}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"
        drawn.append(
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{long:.1f}" height="16" fill="{colour(0)}">'
            f"<title>{escape(name)}: {said}</title></rect>"
            f'<text x="{left + width + 6}" y="{y + 12}">{value:.4g}</text>'
        )
        if low is not None and high is not None:
            ends = [left + max(0.0, v) / most * width for v in (low, high)]
            drawn.append(f'<path d="M{ends[0]:.1f} {y + 8}H{ends[1]:.1f}" stroke="#111" stroke-width="2"/>')
    return _svg(16 + step * len(values), title, "".join(drawn))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _svg(height: float, title: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    )
