"""Draws pictures into files with matplotlib: PNG, SVG and PDF, the same bytes for the same picture."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainer.charts.picture import STEP, HeatMap, Line, Panel, Picture
from trainer.errors import UsageError, lacking
from trainer.text import tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
PIXELS = 200  # per inch, of a PNG
_PANEL = (6.4, 4.0)  # inches of a single panel
_NEXT = 4.6  # inches for each further panel
_SIDE = 1.6  # inches of a legend at the side
_BUCKETS = 2000  # columns whose extremes are drawn
_FEW, _ONE_ROW = 4, 64  # labels in a legend above a panel, and their characters
_SHORT = 26  # characters of a label in a legend at the side
_BELOW = 3.0  # on a log scale, a band may extend below the lowest line by this factor, since it could reach zero
_ROW = 0.2  # inches of a label in a legend below
_MOST_CELLS = 15  # columns of a heat map with numbers in its cells
# Okabe and Ito's colors for any color vision, without the yellow, which is invisible on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_PALE = "#C8C8C8"
_FAILED = "#B00000"
_MAP, _DARKEST, _BRIGHTEST = "viridis", 0.0, 0.88
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "axes.formatter.useoffset": False,
    "path.simplify": False,  # lines are thinned already
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "trainer",
    "pdf.fonttype": 42,  # TrueType, which publishers require
}
_UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def default_size(picture: Picture) -> tuple[float, float]:
    """Return a suitable width and height of a picture, in inches."""
    width, height = _PANEL[0] + _NEXT * (len(picture.parts) - 1), _PANEL[1]
    names = _names(picture)
    if _place(names) == "right":
        width += _SIDE
    elif _place(names) == "below":
        height += _ROW * len(names)
    return width, height


def draw(picture: Picture, suffix: str, size: tuple[float, float] | None = None) -> bytes:
    """Return the content of an image file.

    Args:
        picture: The picture to draw.
        suffix: One of SUFFIXES.
        size: Width and height in inches; None: `default_size`.

    Raises:
        UsageError: matplotlib is not installed.
    """
    with _quiet_matplotlib() as figures:
        figure: Figure = figures.Figure(figsize=size or default_size(picture), dpi=PIXELS, layout="constrained")
        if picture.title:
            figure.suptitle(_plain(picture.title), fontsize=10)
        shared = _is_shared(picture)
        for index, part in enumerate(picture.parts):
            axes = figure.add_subplot(1, len(picture.parts), index + 1)
            if isinstance(part, HeatMap):
                _heat_map(figure, axes, part)
                continue
            handles = _lines(axes, part, picture)
            if handles and not (shared and index):
                _legend(figure if shared else axes, handles, picture.legend if _is_of_runs(part) else "")
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], metadata=_UNDATED[suffix])
    return content.getvalue()


@contextmanager
def _quiet_matplotlib() -> Iterator[Any]:
    """Yield matplotlib.figure, with trainer's style instead of the user's and without messages on fonts and caches."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib
        from matplotlib import figure
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        without = "the terminal (no -o) and -o FILE.csv do not need it"
        raise UsageError(f"{lacking('a picture', 'matplotlib', 'plot')}; {without}") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that no font has
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield figure


def _plain(text: str) -> str:
    """Return a text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _names(picture: Picture) -> list[str]:
    panels = [part for part in picture.parts if isinstance(part, Panel)]
    return max(([line.label for line in part.lines if line.label] for part in panels), key=len, default=[])


def _is_of_runs(part: Panel) -> bool:
    """Return whether the lines are runs or groups of runs, whose labels the heading of the legend explains."""
    return part.x_label == STEP


def _is_shared(picture: Picture) -> bool:
    """Return whether all panels have the same lines, so that they share one legend."""
    panels = [part for part in picture.parts if isinstance(part, Panel)]
    names = {*_names(picture)}
    return (
        len(panels) > 1
        and all(_is_of_runs(part) for part in panels)
        and all({line.label for line in part.lines if line.label} & names for part in panels)
    )


def _place(names: Sequence[str]) -> str:
    """Return the place of a legend: above for a row or two, on the right, or below for long labels."""
    if len(names) <= _FEW and sum(map(len, names)) <= 2 * _ONE_ROW and max(map(len, names), default=0) <= _ONE_ROW // 2:
        return "above"
    return "right" if max(map(len, names)) <= _SHORT else "below"


def _lines(axes: Axes, panel: Panel, picture: Picture) -> list[tuple[Any, str]]:
    """Draw a panel and return the handles and labels of its legend."""
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log", nonpositive="clip")
    num_colors = 1 + max((line.color for line in panel.lines if line.color is not None), default=0)
    handles: list[tuple[Any, str]] = []
    for index, line in enumerate(panel.lines):
        style = _style(line, num_colors, picture.ordered)
        order = 2 if line.color is None else 3 + (len(panel.lines) - index) / len(panel.lines)
        if line.low:
            some = slice(None, None, len(line.x) // (4 * _BUCKETS) + 1)
            x, low, high = line.x[some], line.low[some], line.high[some]
            axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0, zorder=order - 0.5)
        (drawn,) = axes.plot(*line.thinned(_BUCKETS), zorder=order, gid=f"line {index}", **style)
        if line.label:
            handles.append((drawn, line.label))
        if line.best is not None:
            mark: dict[str, Any] = {"marker": "D", "markersize": 5, "color": style["color"], "linestyle": "none"}
            (best,) = axes.plot([line.best.x], [line.best.y], markeredgecolor="white", zorder=9, **mark)
            if line.best.label:
                handles.append((best, line.best.label))
        if line.broken and len(line.x):
            y = [value for value in line.y if math.isfinite(value)][-1:]
            top = math.inf if panel.top is None else panel.top
            axes.plot(line.x[-1:], [min(*y, top) if y else top], marker="x", color=_FAILED, clip_on=False, zorder=9)
    if panel.band and any(line.low for line in panel.lines):
        from matplotlib.patches import Patch

        handles.append((Patch(color="#808080", alpha=0.3, linewidth=0), panel.band))
    if panel.failed:
        place: dict[str, Any] = {
            "transform": axes.get_xaxis_transform(),
            "clip_on": False,
            "linestyle": "none",
            "zorder": 9,
        }
        (crosses,) = axes.plot(panel.failed, [1.0] * len(panel.failed), marker="x", color=_FAILED, **place)
        handles.append((crosses, "failed"))
    _scales(axes, panel)
    return handles


def _style(line: Line, num_colors: int, ordered: bool) -> dict[str, Any]:
    style: dict[str, Any] = {"linewidth": 0.8 if line.faint else 1.3, "linestyle": "-" if line.joined else "none"}
    if line.faint:
        style["alpha"] = 0.55
    if line.dots:
        style |= {"marker": "o", "markersize": 4}
    if line.color is None:
        return {**style, "color": _PALE, "linewidth": 0.8} | ({"markersize": 3} if line.dots else {})
    if ordered and num_colors > 1:
        import matplotlib

        share = _BRIGHTEST + (_DARKEST - _BRIGHTEST) * line.color / (num_colors - 1)
        style["color"] = matplotlib.colormaps[_MAP](share)
    else:
        style["color"] = _COLOURS[line.color % len(_COLOURS)]
    if line.joined and (line.dashed or (not ordered and line.color >= len(_COLOURS))):
        style["linestyle"] = "--"
    return style


def _scales(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(_plain(panel.y_label))
    if panel.ticks:
        axes.set_xticks(list(panel.ticks), [tick(value) for value in panel.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, axis="x")
    elif not panel.log_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=panel.x_label == "step", steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    if not panel.log_y:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    lowest = min((y for line in panel.lines for y in line.y if y > 0 or not panel.log_y), default=1.0)
    if panel.top is not None:  # diverging lines do not count
        lowest = lowest if panel.log_y else min([lowest, *(low for line in panel.lines for low in line.low)])
        margin = (panel.top / lowest) ** 0.05 if panel.log_y else (panel.top - lowest) * 0.05
        axes.set_ylim(lowest / margin if panel.log_y else lowest - margin, panel.top)
    elif panel.log_y and any(low < lowest / _BELOW for line in panel.lines for low in line.low):
        axes.set_ylim(bottom=lowest / _BELOW)


def _legend(owner: Figure | Axes, handles: Sequence[tuple[Any, str]], heading: str) -> None:
    """Place the legend outside the lines: above the panel, on the right, or below."""
    from matplotlib.axes import Axes

    drawn, names = zip(*((one, f" {_plain(name)}") for one, name in handles), strict=True)
    place = _place(names)
    style: dict[str, Any] = {"title": _plain(heading) or None, "alignment": "left"}
    columns = len(names) if sum(map(len, names)) <= _ONE_ROW else 2
    if place == "above" and isinstance(owner, Axes):
        style |= {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": columns, "borderaxespad": 0.2}
    elif place == "above":
        style |= {"loc": "outside upper left", "ncols": columns}
    elif isinstance(owner, Axes) and place == "right":
        style |= {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    elif place == "right":
        style |= {"loc": "outside right upper"}
    else:
        owner = owner.figure if isinstance(owner, Axes) else owner  # type: ignore[assignment]
        style |= {"loc": "outside lower left"}
    owner.legend(drawn, names, **style)


def _heat_map(figure: Figure, axes: Axes, found: HeatMap) -> None:
    import matplotlib
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Rectangle

    values = [cell.value for cell in found.cells.values() if cell.value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    norm = (LogNorm if found.log else Normalize)(low, high if high > low else low + (abs(low) or 1.0) / 10)
    colors = matplotlib.colormaps[_MAP if found.descending else f"{_MAP}_r"]  # better is brighter
    annotated = len(found.columns) <= _MOST_CELLS and len(found.rows) <= _MOST_CELLS
    for (x, y), cell in found.cells.items():
        place = found.columns.index(x) - 0.5, found.rows.index(y) - 0.5
        if cell.value is None:
            axes.add_patch(Rectangle(place, 1, 1, facecolor="#EFEFEF", edgecolor="#BDBDBD", hatch="///", linewidth=0))
            shade, words = "#000000", "failed" if cell.failed else "no result"
        else:
            color = colors(norm(cell.value))
            axes.add_patch(Rectangle(place, 1, 1, facecolor=color, edgecolor="white", linewidth=1.5))
            bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
            shade = "black" if bright > 0.5 else "white"
            words = f"{cell.value:.3g}"
            words += f"\n± {cell.spread:.2g}" if cell.spread is not None else ""
            words += f"\n{cell.failed} failed" if cell.failed else ""
        if annotated:
            box = {"facecolor": "#EFEFEF", "edgecolor": "none", "pad": 1.5} if cell.value is None else None
            axes.text(
                place[0] + 0.5, place[1] + 0.5, words, ha="center", va="center", color=shade, fontsize=8, bbox=box
            )
    if found.best is not None:
        place = found.columns.index(found.best[0]) - 0.5, found.rows.index(found.best[1]) - 0.5
        axes.add_patch(
            Rectangle(place, 1, 1, fill=False, edgecolor=_COLOURS[1], linewidth=2.5, zorder=5, clip_on=False)
        )
    axes.set_xlim(-0.5, len(found.columns) - 0.5)
    axes.set_ylim(-0.5, len(found.rows) - 0.5)
    axes.set_xticks(range(len(found.columns)), [_plain(text) for text in found.columns])
    axes.set_yticks(range(len(found.rows)), [_plain(text) for text in found.rows])
    axes.set_xlabel(_plain(found.x_label))
    axes.set_ylabel(_plain(found.y_label))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if values:
        bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, colors), ax=axes, label=_plain(found.z_label))
        bar.outline.set_visible(False)
