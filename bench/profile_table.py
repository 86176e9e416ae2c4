#!/usr/bin/env python3
"""Puts the profiles of several runs of `lectern bench step --profile` side by side.

    bench/profile_table.py build/compare/profile-*.md

Each file is what one run printed; its last line is the JSON object. Prints two Markdown tables: the share
of the step by group of operations, and the rate of each class of matrix product.
"""
import json
import pathlib
import sys

GROUPS = (
    ("attention", ("attention",)),
    ("linear", ("linear",)),
    ("experts and router", ("experts", "router")),
    ("loss over the vocabulary", ("linear_cross_entropy",)),
    ("convolutions", ("conv2d",)),
    ("norms", ("rms_norm", "layer_norm")),
    ("gelu, swiglu, rope, add", ("gelu", "swiglu", "rope", "add")),
    ("clipping and AdamW", ("AdamW", "gradient norm")),
)


def read(path):
    lines = [line for line in pathlib.Path(path).read_text().splitlines() if line.startswith("{")]
    if not lines:
        sys.exit("%s: holds no JSON line of `lectern bench step --profile`" % path)
    return json.loads(lines[-1])


def group_of(mark):
    kind = mark.split(" ", 1)[1]
    for name, kinds in GROUPS:
        if kind in kinds:
            return name
    return "all else"


def row(name, cells):
    return "| %s | %s |" % (name, " | ".join(cells))


def main():
    runs = [read(path) for path in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    titles = ["%d, %s" % (run["stage"], run["variant"]) for run in runs]
    print(row("share of the step", titles))
    print("|---" * (len(runs) + 1) + "|")
    shares = []
    for run in runs:
        sums = {}
        for mark in run["profile"]["marks"]:
            name = group_of(mark["name"])
            sums[name] = sums.get(name, 0) + mark["share"]
        shares.append(sums)
    for name in [name for name, _ in GROUPS] + ["all else"]:
        print(row(name, ["%.1f %%" % (100 * sums.get(name, 0)) for sums in shares]))
    print(row("seconds a step", ["%.3f" % run["profile"]["seconds"] for run in runs]))
    print()
    print(row("GFLOP/s (share of the large product)", titles))
    print("|---" * (len(runs) + 1) + "|")
    print(row("one large product",
              ["%.0f" % (run["profile"]["product_rate"] / 1e9) for run in runs]))
    names = []
    for run in runs:
        names += [p["name"] for p in run["profile"]["products"] if p["name"] not in names]
    for name in sorted(names):
        cells = []
        for run in runs:
            found = [p for p in run["profile"]["products"] if p["name"] == name]
            cells.append("%.0f (%.0f %%)" % (found[0]["rate"] / 1e9,
                                             100 * found[0]["share_of_peak"]) if found else "")
        print(row(name, cells))


if __name__ == "__main__":
    main()
