"""The plot is an image, and its bars are to scale."""

import xml.etree.ElementTree as ET

import pytest

from bench import ladder
from bench.ladder import Step
from bench.plot import Bar, Panel, svg

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values() -> None:
    """From 0, on one scale for each panel; the line stands where the value it marks would end."""
    panel = Panel("CPU", [Bar("nginx", 5.0, ours=False), Bar("linkmesh", 20.0)], mark=5.0)

    image = ET.fromstring(svg([panel, Panel("other", [Bar("create", 300.0)])]))
    widths = [float(bar.get("width", 0)) for bar in image.iter(f"{SVG}rect")]
    (line,) = image.iter(f"{SVG}line")
    (first, *_) = image.iter(f"{SVG}rect")

    assert widths[1] == 4 * widths[0] == widths[2]
    assert float(line.get("x1", 0)) == float(first.get("x", 0)) + widths[0]


def test_names_are_text_whatever_they_contain() -> None:
    """A peer may be called as its user likes."""
    image = ET.fromstring(svg([Panel("<&>", [Bar("<script>", 1.0, " & more")])]))

    assert [text.text for text in image.iter(f"{SVG}text")] == ["<&>", "<script>", "1.0 & more"]


def test_bars_of_nothing_are_drawn() -> None:
    """All values 0, or no bars at all, are no reason to fail at the end of a long run."""
    image = ET.fromstring(svg([Panel("none", []), Panel("zero", [Bar("x", 0.0)])]))

    assert [bar.get("width") for bar in image.iter(f"{SVG}rect")] == ["0.0"]


def test_a_step_costs_what_it_adds() -> None:
    """The profile tells of each step what it costs beyond the one before, and of nginx only what it costs."""
    steps = [Step("nginx", 5.5, 1.7, 3.8, 1e5), Step("bytes", 4.8, 1.0, 3.8, 1e5), Step("parsed", 6.3, 2.2, 4.1, 1e5)]

    lines = ladder.text(steps).splitlines()[2:]

    assert [line.split("|")[5].strip() for line in lines] == ["-", "+4.8", "+1.5"]
    widths = [float(bar.get("width", 0)) for bar in ET.fromstring(ladder.plot(steps)).iter(f"{SVG}rect")]
    assert widths[1] / widths[0] == pytest.approx(1.5 / 4.8, rel=0.01)
