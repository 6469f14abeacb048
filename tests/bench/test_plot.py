"""The picture: well-formed, in the right colours, the bound where it belongs."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

from bench.plot import BOUND_COLOUR, LEFT, ORIGIN_COLOUR, PEERS_COLOUR, RIGHT, WIDTH, Panel, Picture, Point, Row

SVG = "{http://www.w3.org/2000/svg}"
HALF = Row(
    name="a0",
    points=tuple(Point(at_s=second, from_origin=second / 20, from_peers=second / 20) for second in range(11)),
    end_s=10.0,
)
ORIGIN_ONLY = Row(
    name="a1",
    points=tuple(Point(at_s=second, from_origin=second / 10, from_peers=0) for second in range(11)),
    end_s=10.0,
)


def drawn(*panels: Panel, bound_s: float = 8.0, title: str = "cold") -> ET.Element:
    return ET.fromstring(Picture(title=title, bound_s=bound_s, panels=panels).svg())


def points(polygon: ET.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in polygon.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


def areas(root: ET.Element, colour: str) -> list[ET.Element]:
    return [item for item in root.iter(f"{SVG}polygon") if item.attrib["fill"] == colour]


def height(polygon: ET.Element) -> float:
    """At the end."""
    last = max(x for x, _ in points(polygon))
    ys = [y for x, y in points(polygon) if x == last]
    return max(ys) - min(ys)


def bounds(root: ET.Element) -> list[ET.Element]:
    return [item for item in root.iter(f"{SVG}line") if item.attrib["stroke"] == BOUND_COLOUR]


def test_each_source_has_its_colour_and_its_share() -> None:
    root = drawn(Panel(title="one", rows=(HALF, ORIGIN_ONLY)))

    origin, peers = areas(root, ORIGIN_COLOUR), areas(root, PEERS_COLOUR)
    assert len(origin) == len(peers) == 2
    assert height(origin[0]) == height(peers[0]) > 0
    assert height(peers[1]) == 0
    assert abs(height(origin[1]) - 2 * height(origin[0])) <= 0.2  # a digit after the point
    texts = [item.text for item in root.iter(f"{SVG}text")]
    assert {"cold", "one", "a0", "a1", "from the origin", "from peers", "T_min 8.0 s"} <= set(texts)


def test_the_bound_is_drawn_to_scale_in_each_column() -> None:
    root = drawn(Panel(title="one", rows=(HALF,)), Panel(title="two", rows=(HALF,)))

    legend, *lines = bounds(root)
    ends = [max(x for x, _ in points(item)) for item in areas(root, PEERS_COLOUR)]
    starts = [min(x for x, _ in points(item)) for item in areas(root, PEERS_COLOUR)]
    assert len(lines) == 2
    assert "stroke-dasharray" in legend.attrib
    for line, start, end in zip(lines, starts, ends, strict=True):
        assert line.attrib["x1"] == line.attrib["x2"]
        assert abs((float(line.attrib["x1"]) - start) / (end - start) - 0.8) < 0.001


def test_what_takes_much_longer_goes_out_on_the_right() -> None:
    long = Row(
        name="a0",
        points=tuple(Point(at_s=second, from_origin=second / 100, from_peers=0) for second in range(101)),
        end_s=100.0,
    )
    root = drawn(Panel(title="slow", rows=(long,)), bound_s=8.0)

    places = [x for item in areas(root, ORIGIN_COLOUR) for x, _ in points(item)]
    assert min(places) >= LEFT
    assert max(places) <= WIDTH - RIGHT
    assert max(places) > WIDTH - RIGHT - 1
    assert float(bounds(root)[1].attrib["x1"]) < WIDTH / 2


def test_sixteen_agents_and_four_systems_fit() -> None:
    rows = tuple(Row(name=f"a{number}", points=HALF.points, end_s=10.0) for number in range(16))
    root = drawn(*(Panel(title=f"system {number}", rows=rows) for number in range(4)))

    assert len(areas(root, ORIGIN_COLOUR)) == 64
    height = float(root.attrib["height"])
    assert height < 500
    for x, y in itertools.chain.from_iterable(points(item) for item in root.iter(f"{SVG}polygon")):
        assert LEFT <= x <= WIDTH - RIGHT
        assert 0 < y < height


def test_points_that_nobody_can_tell_apart_are_left_out() -> None:
    many = Row(
        name="a0",
        points=tuple(Point(at_s=item / 1000, from_origin=item / 20_000, from_peers=0) for item in range(10_001)),
        end_s=None,
    )
    root = drawn(Panel(title="x", rows=(many,)))

    (area,) = areas(root, ORIGIN_COLOUR)
    assert 400 < len(points(area)) < 1200
    assert height(area) > 17  # the last one is kept: half of the row


def test_a_row_without_end_and_one_without_points() -> None:
    never = Row(name="a0", points=HALF.points[:5], end_s=None)
    root = drawn(Panel(title="x", rows=(never, Row(name="a1", points=(), end_s=None))))

    assert len(areas(root, ORIGIN_COLOUR)) == 1


def test_titles_are_text_and_nothing_else() -> None:
    root = drawn(Panel(title="<b>&", rows=(HALF,)), title='"<script>"')

    assert '"<script>"' in [item.text for item in root.iter(f"{SVG}text")]
    assert not list(root.iter(f"{SVG}script"))
