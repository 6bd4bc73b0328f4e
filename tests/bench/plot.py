"""Figures that were measured at several sizes, as a line each in an SVG."""

import statistics
from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.table import Row

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 120, 20, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind too
GRID_LINES = 5
LINE = 18


def as_svg(rows: Sequence[Row]) -> str:
    """The sizes side by side, in the order in which they come; the median's height, the range as a thin line."""
    sizes = list(dict.fromkeys(row.at for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    top = max(max(row.ours) for row in rows)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
            ' font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *_grid(top, rows[0].unit),
            *(
                f'<text x="{_x(size, sizes):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(size)}</text>'
                for size in sizes
            ),
            *(
                line
                for number, name in enumerate(names)
                for line in _series(
                    [row for row in rows if row.name == name], sizes, top, COLOURS[number], TOP + LINE * number
                )
            ),
            "</svg>\n",
        ]
    )


def _grid(top: float, unit: str) -> Iterator[str]:
    for number in range(GRID_LINES + 1):
        value = top * number / GRID_LINES
        y = _y(value, top)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.1f} {escape(unit)}</text>'


def _series(rows: Sequence[Row], sizes: Sequence[str], top: float, colour: str, label_y: int) -> Iterator[str]:
    points = [(_x(row.at, sizes), _y(statistics.median(row.ours), top)) for row in rows]
    for row, (x, _) in zip(rows, points, strict=True):
        low, high = _y(min(row.ours), top), _y(max(row.ours), top)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    yield f'<text x="{WIDTH - RIGHT + 40}" y="{label_y}" fill="{colour}">{escape(rows[0].name)}</text>'


def _x(size: str, sizes: Sequence[str]) -> float:
    step = (WIDTH - LEFT - RIGHT) / max(len(sizes) - 1, 1)
    return LEFT + step * sizes.index(size)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
