"""Draws the scale runs as curves: curves.py RESULTS.json OUTPUT.svg DATE…   (needs matplotlib)

One row for each data set: wall time and peak memory against size. The text stays text and no time is written,
so that the same figures give the same file.
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sealift", "font.size": 9})

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

STEPS = {"full": "full", "unchanged": "unchanged", "day": "a day later", "restore": "restore"}
FIGURES = {"wall_s": ("wall time, s", 1), "peak_bytes": ("peak memory, MB", 1e6)}
UNITS = {"files": ("files, million", 1e6), "database": ("database, GiB", 1)}


def main():
    results, output, *dates = sys.argv[1:]
    with open(results) as file:
        runs = [run for run in json.load(file) if run["date"] in dates]
    latest = {name: run for run in runs for name in run["data"] if name in UNITS}
    figure, axes = pyplot.subplots(len(latest), 2, figsize=(8, 2.7 * len(latest)), squeeze=False)
    for row, (name, run) in zip(axes, sorted(latest.items(), reverse=True)):
        for axis, (key, (title, per)) in zip(row, FIGURES.items()):
            for step, label in STEPS.items():
                points = sorted(
                    (one["size"] / UNITS[name][1], one[key] / per)
                    for one in run["measurements"]
                    if one["dataset"] == name and one["step"] == step and one["ok"]
                )
                if points:
                    axis.plot(*zip(*points), marker="o", markersize=3, label=label)
            axis.set(xlabel=UNITS[name][0], ylabel=title)
            axis.set_xlim(left=0)
            axis.set_ylim(bottom=0)
            axis.locator_params(nbins=5)
            axis.grid(axis="y", alpha=0.3)
        row[0].legend()
    figure.tight_layout()
    figure.savefig(output, metadata={"Date": None})


main()
