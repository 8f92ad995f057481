"""The table of run.py as a picture: an SVG for light pages, and one for dark ones."""

import math
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, LINE = 880, 280, 24, 74, 24
LOW, HIGH = 0.6, 48.0
TICKS = (1, 1.5, 2, 4, 8, 16, 32)

# Of what each page is made, and the marks: hues that are told apart without colour vision, too.
PALETTES = {
    "light": {
        "ground": "#ffffff", "text": "#1f2328", "faint": "#59636e", "grid": "#d1d9e0",
        "socket": "#8c959f", "x/sys": "#b35900", "nix": "#8250df", "drop-in": "#0969da",
        "typed": "#1a7f37",
    },
    "dark": {
        "ground": "#0d1117", "text": "#e6edf3", "faint": "#9198a1", "grid": "#30363d",
        "socket": "#8b949e", "x/sys": "#db8b3c", "nix": "#bc8cff", "drop-in": "#58a6ff",
        "typed": "#3fb950",
    },
}  # fmt: skip

LABELS = {
    "socket": "socket",
    "x/sys": "Go x/sys",
    "nix": "Rust nix",
    "drop-in": "cmsgx, drop-in",
    "typed": "cmsgx, typed or batch",
}


def marks(row: dict[str, Any]) -> dict[str, float]:
    """Times of plain C, by what is drawn."""
    to_c = {name: spread["median"] for name, spread in row["to_c"].items() if spread}
    typed = [to_c[name] for name in ("with", "for", "batch") if name in to_c]
    found = {name: to_c[name] for name in LABELS if name in to_c}
    return {**found, **({"typed": min(typed)} if typed else {})}


def across(times: float) -> float:
    share = math.log(times / LOW) / math.log(HIGH / LOW)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def text(x: float, y: float, words: str, colour: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def draw(numbers: dict[str, Any], palette: dict[str, str]) -> str:
    """The chart of the numbers that run.py writes as JSON."""
    rows = [(row["row"], marks(row)) for row in numbers["rows"]]
    bottom = TOP + LINE * len(rows)
    shown = [name for name in LABELS if any(name in found for _, found in rows)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" '
        f'width="{WIDTH}" height="{bottom + 34}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>Time for the same work, as a multiple of plain C</title>",
        f'<rect width="100%" height="100%" fill="{palette["ground"]}"/>',
        text(16, 26, "Time for the same work; plain C is 1, less is better", palette["text"]),
    ]
    x = 16.0
    for name in shown:
        parts.append(f'<circle cx="{x + 5:.1f}" cy="46" r="5" fill="{palette[name]}"/>')
        parts.append(text(x + 16, 50.5, LABELS[name], palette["faint"]))
        x += 40 + 7.2 * len(LABELS[name])
    for tick in TICKS:
        at = across(tick)
        colour, width = (palette["text"], 1.5) if tick == 1 else (palette["grid"], 1)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )
        parts.append(text(at, bottom + 20, f"{tick:g}", palette["faint"], anchor="middle"))
    for i, (label, found) in enumerate(rows):
        y = TOP + LINE * i + LINE / 2
        parts.append(text(LEFT - 16, y + 4.5, label, palette["text"], anchor="end"))
        places = [across(times) for times in found.values()]
        parts.append(
            f'<line x1="{min(places):.1f}" x2="{max(places):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{palette["grid"]}" stroke-width="3"/>'
        )
        for name, times in found.items():
            parts.append(
                f'<circle cx="{across(times):.1f}" cy="{y:.1f}" r="5" fill="{palette[name]}">'
                f"<title>{escape(f'{label}, {LABELS[name]}: {times:.2f}')}</title></circle>"
            )
    return "\n".join([*parts, "</svg>", ""])
