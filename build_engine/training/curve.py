"""Draw the training curve."""

from __future__ import annotations

from pathlib import Path

from fcnedge.runtime.errors import missing_package


def draw_curve(rows: list[dict[str, float]], path: Path) -> Path:
    """Loss and mean IoU per epoch as a PNG at `path`; rows as `read_curve` gives them. Raises UserError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_package("matplotlib", extra="train") from error
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, name, title in zip(figure.subplots(1, 2), ("loss", "miou"), ("cross-entropy", "mean IoU"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return path
