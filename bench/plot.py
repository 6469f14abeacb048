"""A picture of a laboratory's runs, as SVG: each agent's progress over time, coloured by source, and the bound.

One column a system, one row an agent; all columns have the same scale. Pure. Never knows: namespaces, systems.
Source: SVG 1.1 (W3C), of which rect, line, polygon and text are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

ORIGIN_COLOUR = "#d9772b"
PEERS_COLOUR = "#3277b5"
BOUND_COLOUR = "#1a1a1a"
_INK, _FAINT, _EMPTY = "#333333", "#8a8a8a", "#f0f0f0"

WIDTH = 860
"""What a README shows without shrinking it."""
LEFT, RIGHT, TOP, BOTTOM, GAP = 34, 14, 62, 40, 18
AREA_HEIGHT = 288
"""Of all rows together, as long as they keep `MIN_ROW`."""
MIN_ROW, MAX_ROW = 14, 40
NEAR = 1.5
"""Points closer together than this are one, in pixels."""
LONGEST = 3.0
"""In T_min: what takes longer goes out of the picture on the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one agent had at one moment, as shares of everything."""

    at_s: float
    from_origin: float
    from_peers: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One agent."""

    name: str
    points: tuple[Point, ...]
    end_s: float | None
    """When it had everything; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One system."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything that is drawn; at least one panel with at least one row."""

    title: str
    bound_s: float
    panels: tuple[Panel, ...]

    def svg(self) -> str:
        """The document."""
        return "\n".join(_Drawing(self).lines()) + "\n"


class _Drawing:
    """Sizes and scales of one picture."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        rows = max(len(panel.rows) for panel in picture.panels)
        self._row = max(MIN_ROW, min(MAX_ROW, AREA_HEIGHT / rows))
        self._bottom = TOP + rows * self._row
        columns = len(picture.panels)
        self._panel = (WIDTH - LEFT - RIGHT - (columns - 1) * GAP) / columns
        ends = [_last(row) for panel in picture.panels for row in panel.rows]
        self._longest = min(max([*ends, picture.bound_s]) * 1.04, picture.bound_s * LONGEST)

    def lines(self) -> Iterator[str]:
        """The document, line by line."""
        height = self._bottom + BOTTOM
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}"'
            f' height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="12" role="img">'
        )
        yield f"<title>{escape(self._picture.title)}</title>"
        yield f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="#ffffff"/>'
        yield _text(LEFT, 20, self._picture.title, size=14)
        yield from self._legend()
        for number, panel in enumerate(self._picture.panels):
            yield from self._draw(panel, LEFT + number * (self._panel + GAP), names=number == 0)
        yield "</svg>"

    def _legend(self) -> Iterator[str]:
        x = float(WIDTH - RIGHT - 330)
        for colour, words, width in (
            (ORIGIN_COLOUR, "from the origin", 112),
            (PEERS_COLOUR, "from peers", 86),
        ):
            yield _box((x, 11, 11, 11), colour)
            yield _text(x + 16, 20, words)
            x += width + 4
        yield _line((x, 9), (x, 23), BOUND_COLOUR, dashed=True)
        yield _text(x + 8, 20, f"T_min {self._picture.bound_s:.1f} s")

    def _draw(self, panel: Panel, left: float, *, names: bool) -> Iterator[str]:
        yield _text(left, TOP - 8, panel.title, size=12, colour=_INK)
        for number, row in enumerate(panel.rows):
            top = TOP + number * self._row
            height = self._row - 3
            yield _box((left, top, self._panel, height), _EMPTY)
            if names:
                yield _text(LEFT - 6, top + height / 2 + 4, row.name, anchor="end", colour=_FAINT)
            yield from self._areas(row, left, (top, height))
        yield from self._axis(left)

    def _areas(self, row: Row, left: float, band: tuple[float, float]) -> Iterator[str]:
        """What came from the origin lies below, what came from peers on top of it."""
        top, height = band
        floor = top + height
        points = self._visible(row)
        if not points:
            return
        xs = [left + self._x(point.at_s) for point in points]
        origin = [floor - height * min(1.0, point.from_origin) for point in points]
        total = [floor - height * min(1.0, point.from_origin + point.from_peers) for point in points]
        if row.end_s is not None and row.end_s <= self._longest:
            xs, origin, total = _ended(xs, origin, total, left + self._x(row.end_s))
            end = left + self._x(row.end_s)
            yield _line((end, top), (end, floor), _INK)
        yield _area(xs, origin, [floor] * len(xs), ORIGIN_COLOUR)
        yield _area(xs, total, origin, PEERS_COLOUR)

    def _visible(self, row: Row) -> list[Point]:
        """Those in the picture, without those that nobody could tell apart."""
        found: list[Point] = []
        for point in row.points:
            if point.at_s <= self._longest and (
                point is row.points[-1] or not found or self._x(point.at_s - found[-1].at_s) >= NEAR
            ):
                found.append(point)
        return found

    def _axis(self, left: float) -> Iterator[str]:
        y = self._bottom
        step = _step(self._longest, self._panel)
        number = 0
        while number * step <= self._longest:
            x = left + self._x(number * step)
            yield _line((x, y), (x, y + 4), _FAINT)
            unit = " s" if number == 0 else ""
            yield _text(x, y + 17, f"{number * step:g}{unit}", anchor="middle", colour=_FAINT)
            number += 1
        bound = left + self._x(self._picture.bound_s)
        yield _line((bound, TOP - 3), (bound, y + 4), BOUND_COLOUR, dashed=True)

    def _x(self, seconds: float) -> float:
        return self._panel * seconds / self._longest


def _last(row: Row) -> float:
    return row.end_s if row.end_s is not None else max((point.at_s for point in row.points), default=0.0)


def _ended(
    xs: list[float], origin: list[float], total: list[float], end: float
) -> tuple[list[float], list[float], list[float]]:
    """Nothing beyond the end: the last look came a little later."""
    kept = [number for number, x in enumerate(xs) if x < end] or [0]
    last = min(kept[-1] + 1, len(xs) - 1)
    return (
        [*(xs[number] for number in kept), end],
        [*(origin[number] for number in kept), origin[last]],
        [*(total[number] for number in kept), total[last]],
    )


def _step(longest: float, width: float) -> float:
    """Seconds between two marks, about 60 pixels apart."""
    wanted = longest * 60 / width
    scale = 1.0
    while scale * 10 <= wanted:
        scale *= 10
    while scale > wanted:
        scale /= 10
    return next((scale * factor for factor in (1, 2, 5) if scale * factor >= wanted), scale * 10)


def _area(xs: Sequence[float], upper: Sequence[float], lower: Sequence[float], colour: str) -> str:
    there = [f"{x:.1f},{y:.1f}" for x, y in zip(xs, upper, strict=True)]
    back = [f"{x:.1f},{y:.1f}" for x, y in zip(reversed(xs), reversed(lower), strict=True)]
    return f'<polygon points="{" ".join([*there, *back])}" fill="{colour}"/>'


def _box(place: tuple[float, float, float, float], colour: str) -> str:
    x, y, width, height = place
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-width="1.5" stroke-dasharray="4 3"' if dashed else ""
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashes}/>'


def _text(x: float, y: float, words: str, *, size: int = 11, anchor: str = "start", colour: str = _INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(words)}</text>'
