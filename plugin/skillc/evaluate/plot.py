"""Curves as a PNG, one panel each; needs matplotlib, which only the `dev` extra brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skillc.evaluate.bench import Curve
from skillc_compiler.errors import SkillcError

_COLUMNS = 3


def require_matplotlib() -> None:
    """Raise SkillcError in one line when it is not installed, before anything is measured."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SkillcError("--plot needs matplotlib: pip install 'skillc[dev]'") from error
    mpl.use("Agg")


def save_plot(curves: Sequence[Curve], path: Path) -> None:
    """Draw the curves with their intervals, shares from 0 to 1; the folder must exist."""
    require_matplotlib()
    from matplotlib import pyplot

    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for place, axis in enumerate(axes.flat):
        if place < len(curves):
            _draw(axis, curves[place])
        else:
            axis.axis("off")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axis: object, curve: Curve) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    values = [point[0] for line in curve.lines.values() for point in line]
    for name, points in curve.lines.items():
        if not points:
            continue
        x, y, low, high = zip(*points, strict=True)
        (line,) = axis.plot(x, y, marker="o", markersize=3, label=name)
        axis.fill_between(x, low, high, alpha=0.15, color=line.get_color())
    if min(values) > 0 and max(values) / min(values) >= 8:
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
    axis.set_ylim(-0.02, 1.02)
    axis.set(title=curve.title, xlabel=curve.axis, ylabel="exact match")
    axis.grid(alpha=0.3)
    axis.legend()
