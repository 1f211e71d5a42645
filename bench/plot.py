"""Bars as an SVG, by hand: a library for this would be larger than all of the bench.

Colours are told to follow the reader's light or dark page; the background is the page's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABELS, _VALUES = 760, 150, 130
_BAR, _GAP, _TITLE = 18, 8, 34
_STYLE = """
text{font:13px system-ui,sans-serif;fill:#444}
.title{font-weight:600}
.ours{fill:#3b7dd8}
.others{fill:#9a9a9a}
.line{stroke:#9a9a9a;stroke-dasharray:3 4}
@media (prefers-color-scheme:dark){text{fill:#ccc}.ours{fill:#6ea8f0}.others{fill:#7d7d7d}}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its name; `note` stands behind it."""

    name: str
    value: float
    note: str = ""
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale, which begins at 0. `mark`: a value to compare all of them with, as a line."""

    title: str
    bars: Sequence[Bar]
    mark: float | None = None


def svg(panels: Sequence[Panel]) -> str:
    """The panels below each other."""
    parts: list[str] = []
    y = 0
    for panel in panels:
        if panel.bars:
            drawn, height = _panel(panel, y)
            parts += drawn
            y += height
    body = "\n".join(parts)
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'


def _panel(panel: Panel, top: int) -> tuple[list[str], int]:
    room = _WIDTH - _LABELS - _VALUES
    scale = room / max(bar.value for bar in panel.bars) if any(bar.value > 0 for bar in panel.bars) else 0.0
    drawn = [f'<text class="title" x="0" y="{top + 18}">{escape(panel.title)}</text>']
    y = top + _TITLE
    for bar in panel.bars:
        width, middle = bar.value * scale, y + _BAR - 5
        kind = "ours" if bar.ours else "others"
        drawn += [
            f'<text x="{_LABELS - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LABELS + width + 8:.1f}" y="{middle}">{bar.value:.1f}{escape(bar.note)}</text>',
        ]
        y += _BAR + _GAP
    if panel.mark is not None:
        x = _LABELS + panel.mark * scale
        drawn.append(f'<line class="line" x1="{x:.1f}" y1="{top + _TITLE - 4}" x2="{x:.1f}" y2="{y - _GAP + 4}"/>')
    return drawn, y - top + _GAP
