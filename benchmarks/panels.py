"""Plots for the documentation: panels with points, a line through them and the limit that was promised. Plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 380, 260, 62, 44, 46, 24
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-weight:600;font-size:13px;fill:#24292f}"
    ".axis{stroke:#8c959f}.grid{stroke:#d0d7de;stroke-dasharray:2 3}.line{fill:none;stroke:#0969da;stroke-width:2}"
    ".dot{fill:#0969da}.limit{stroke:#cf222e;stroke-dasharray:6 4}.limit-text{fill:#cf222e}"
    "@media(prefers-color-scheme:dark){text{fill:#8b949e}.title{fill:#e6edf3}.grid{stroke:#30363d}}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """Attributes:
    x, y: the points; both axes are linear and start at 0.
    limit: what y must stay below.
    """

    title: str
    x_name: str
    x: Sequence[float]
    y: Sequence[float]
    limit: float
    unit: str


def svg(panels: Sequence[Panel]) -> str:
    width = len(panels) * _WIDTH + (len(panels) - 1) * _GAP
    body = "".join(
        f'<g transform="translate({number * (_WIDTH + _GAP)},0)">{_drawn(panel)}</g>'
        for number, panel in enumerate(panels)
    )
    label = "; ".join(panel.title for panel in panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{label}">'
        f"<style>{_STYLE}</style>{body}</svg>\n"
    )


def _drawn(panel: Panel) -> str:
    highest_x, highest_y = max(panel.x), 1.1 * max(panel.limit, *panel.y)

    def across(x: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - 16) * x / highest_x, 1)

    def up(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * y / highest_y, 1)

    points = [(across(x), up(y)) for x, y in zip(panel.x, panel.y, strict=True)]
    right, floor = across(highest_x), up(0)
    parts = [f'<text class="title" x="{_LEFT}" y="20">{panel.title}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = panel.limit * share
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{up(y)}" y2="{up(y)}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{up(y) + 4}" text-anchor="end">{y:,.4g}</text>')
    parts.append(f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{up(panel.limit)}" y2="{up(panel.limit)}"/>')
    said = f"limit {panel.limit:,.4g} {panel.unit}"
    parts.append(f'<text class="limit-text" x="{_LEFT + 6}" y="{up(panel.limit) - 6}">{said}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    parts += [
        f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{value / 1000:,.0f}k</text>'
        for (x, _), value in zip(points, panel.x, strict=True)
    ]
    parts.append(f'<text x="{right}" y="{floor + 36}" text-anchor="end">{panel.x_name}</text>')
    parts.append(f'<polyline class="line" points="{" ".join(f"{x},{y}" for x, y in points)}"/>')
    parts += [f'<circle class="dot" cx="{x}" cy="{y}" r="4"/>' for x, y in points]
    return "".join(parts)
