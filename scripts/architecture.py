"""Draws docs/architecture.svg from the table of layers that the tests read.

.venv/bin/python scripts/architecture.py            draws it
.venv/bin/python scripts/architecture.py --check    fails if it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from layers import LAYERS, files, ours, wing  # noqa: E402 (found in tests/)

PICTURE = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX, GAP, LEFT = 860, 74, 46, 14, 20
ALONE = "one module"
COLOURS = {"training": "#dbeafe", "runs": "#dcfce7", "checkpoints": "#dcfce7", "session": "#fef3c7"}


def modules(name: str) -> int:
    """Count the modules of a wing."""
    return sum(wing(module) == name and not module.endswith("__init__") for module in files())


def text(x: float, y: float, content: str, size: int = 14, style: str = "") -> str:
    """Return a text element centered at x."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle"{style}>{content}</text>'


def draw() -> str:
    """Return the picture: one row per layer, the highest first, with a box for each wing and its number of modules."""
    rows = [[name for name in sorted(layer) if modules(name)] for layer in reversed(LAYERS)]
    height = ROW * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        text(WIDTH / 2, 26, "An import goes down, or stays in its wing.", 15),
    ]
    for row, names in enumerate(rows):
        top = 44 + ROW * row
        width = min(150.0, (WIDTH - 2 * LEFT - GAP * (len(names) - 1)) / len(names))
        start = (WIDTH - width * len(names) - GAP * (len(names) - 1)) / 2
        for index, name in enumerate(names):
            x = start + index * (width + GAP)
            colour = COLOURS.get(name, "#f3f4f6")
            parts.append(
                f'<rect x="{x:g}" y="{top}" width="{width:g}" height="{BOX}" rx="6" fill="{colour}" stroke="#6b7280"/>'
            )
            is_wing = any(module.startswith(f"{name}.") for module in files())
            many = f"{modules(name)} modules" if is_wing else ALONE
            below = {wing(other) for module in files() if wing(module) == name for other in ours(module)} - {name}
            parts.append(
                f"<g><title>{name} imports {', '.join(sorted(below - {'__init__'})) or 'nothing of ours'}</title>"
            )
            parts.append(text(x + width / 2, top + 20, f"{name}/" if is_wing else name, 14, ' font-weight="bold"'))
            parts.append(text(x + width / 2, top + 37, many, 11, ' fill="#4b5563"') + "</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if not PICTURE.exists() or PICTURE.read_text() != draw():
            raise SystemExit("docs/architecture.svg is stale: scripts/architecture.py draws it again")
    else:
        PICTURE.write_text(draw())
        print(f"wrote {PICTURE.relative_to(ROOT)}")
