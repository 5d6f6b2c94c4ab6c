"""Accuracy against what it costs, as an SVG picture by Matplotlib."""

import io
from collections.abc import Sequence
from typing import Any

__all__ = ["accuracy_plot"]

PANELS = (("bytes", "bytes of the image"), ("cycles", "cycles of an inference"))
STYLE: dict[Any, Any] = {"svg.hashsalt": "shiftwright", "svg.fonttype": "none", "font.family": "sans-serif"}
"""Text stays text, and the same figures give the same file."""


def accuracy_plot(rows: Sequence[dict[str, Any]], float_accuracy: float, title: str) -> bytes:
    """Two panels: accuracy in percent against bytes and against cycles, both on logarithmic axes.

    Parameters
    ----------
    rows : sequence of dict
        Each with ``name``, ``accuracy`` (0 to 1), ``bytes`` and ``cycles``.
    float_accuracy : float
        Of the float network: a dashed line.
    title : str
        Heading.

    Returns
    -------
    bytes
        The SVG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.5), layout="constrained")
        figure.suptitle(title)
        for number, (what, label) in enumerate(PANELS, 1):
            axes = figure.add_subplot(1, 2, number)
            axes.axhline(100 * float_accuracy, color="gray", linestyle="--", linewidth=1)
            for row in rows:
                axes.plot(row[what], 100 * row["accuracy"], "o")
                axes.annotate(row["name"], (row[what], 100 * row["accuracy"]), xytext=(4, 4),
                              textcoords="offset points", fontsize=8)
            axes.set_xscale("log")
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy, %")
            axes.grid(True, which="both", linewidth=0.3)
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
