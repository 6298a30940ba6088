"""Draw the results: ``plots.py linear.json FOLDER``, run where matplotlib is.

Writes ``linear-size.svg`` (time to the target against the number of columns) and
``linear-suboptimality.svg`` (excess over the best objective against time, a panel per problem).
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = {
    "thresher": "#d62728", "celer": "#1f77b4", "skglm": "#2ca02c", "adelie": "#ff7f0e",
    "scikit-learn": "#7f7f7f", "abess": "#9467bd", "spams-bin": "#8c564b",
}  # fmt: skip


def size_plot(problems):
    """Draw one line per library over the problems of a series."""
    series = [item for item in problems if item["series"]]
    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for library, colour in COLOURS.items():
        points = []
        for item in series:
            for row in item["rows"]:
                if row["library"] == library and row.get("reached"):
                    columns = int(item["problem"].split(" x ")[1].split(",")[0])
                    points.append((columns, row["runs"][row["chosen"]]["warm"]))
        if points:
            axes.loglog(*np.transpose(sorted(points)), "o-", label=library, color=colour)
    axes.set(xlabel="columns", ylabel="seconds, warm")
    axes.set_title(f"{series[0]['series']}: time to a relative gap of 1e-6" if series else "")
    axes.legend()
    return figure


def suboptimality_plot(problems):
    """Draw a panel per problem with a criterion, one line per library along its tolerances."""
    shown = [item for item in problems if item["stop"]]
    columns = 3
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    for panel, item in zip(axes.flat, shown, strict=False):
        for row in item["rows"]:
            runs = row.get("runs", [])
            times = [run["warm"] for run in runs]
            # What lies below the rounding of the objective is drawn at it.
            values = [max(run["suboptimality"], 1e-16) for run in runs]
            panel.loglog(times, values, "o-", label=row["library"], color=COLOURS[row["library"]])
        panel.set_title(item["problem"], fontsize=8)
        panel.legend(fontsize=7)
        panel.set(xlabel="seconds, warm", ylabel="suboptimality")
        label_times(panel.xaxis)
    return figure


def label_times(axis):
    """Choose the ticks of a logarithmic axis so that labels don't overlap where it is short."""
    least, most = axis.get_view_interval()
    steps = (1, 2, 5) if most < 40 * least else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axis.set_minor_formatter(NullFormatter())


def main(source, folder):
    record = json.loads(Path(source).read_text(encoding="utf-8"))
    problems = record["problems"]
    note = "" if all(item["quiet"] for item in problems) else "measured on a loaded machine"
    plt.rcParams["svg.hashsalt"] = "linear"  # the same figures give the same file
    for name, draw in (("size", size_plot), ("suboptimality", suboptimality_plot)):
        figure = draw(problems)
        if note:
            figure.suptitle(note, color="red")
        partial = Path(folder) / f"linear-{name}.partial.svg"
        figure.savefig(partial, metadata={"Date": None})
        partial.replace(Path(folder) / f"linear-{name}.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
