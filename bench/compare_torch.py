#!/usr/bin/env python3
"""Compares one training step of lectern with PyTorch + transformers: same model, sizes and threads.

Runs bench/torch_step.py and `lectern bench step` in turn (A B A B ...), so that both meet the same
neighbours on a shared machine, and prints one Markdown table.

    bench/compare_torch.py                                    # fp32, stages 1 to 3, five pairs
    bench/compare_torch.py --stages 3 --pairs 2 --steps 3
    bench/compare_torch.py --variants all --cached --out build/compare.json

speed-up = PyTorch's seconds / lectern's seconds of a pair of runs; above 1 lectern is faster. The
table gives the median over the pairs, with the smallest and the largest. A run's seconds are the
median over its timed steps; each program warms up for two steps first. The second table has, for each
stage and dtype, the variant of PyTorch that comes nearest.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
VARIANTS = ("fp32", "fp32-compile", "bf16", "bf16-compile")


class Failure(Exception):
    """A message for the user; the program ends with it."""


def default_python():
    """The oracle environment: $LECTERN_ORACLE_VENV, or where scripts/oracle-venv.sh puts it."""
    folder = os.environ.get("LECTERN_ORACLE_VENV", ROOT / "build/oracle-venv")
    return pathlib.Path(folder) / "bin/python3"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs for each row (5)")
    parser.add_argument("--stages", default="1,2,3", help="1, 2, 3 or several with commas (all)")
    parser.add_argument("--variants", default="fp32",
                        help="what PyTorch runs, with commas: %s; or all (fp32)"
                             % ", ".join(VARIANTS))
    parser.add_argument("--cached", action="store_true",
                        help="also stage 3 with lectern's encoder cache, against PyTorch's stage 3")
    parser.add_argument("--lectern-dtype", choices=["fp32", "bf16"],
                        help="default: the variant's own")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a run (6)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="CPU threads of both (the cores this process may use)")
    parser.add_argument("--config", type=pathlib.Path, default=HERE / "bench_small.json")
    parser.add_argument("--batch", type=int, default=1, help="pages a step (1)")
    parser.add_argument("--crops", type=int, default=2, help="768x768 views a page (2)")
    parser.add_argument("--text", type=int, default=256, help="text tokens a page (256)")
    parser.add_argument("--lectern", type=pathlib.Path, default=ROOT / "build/lectern")
    parser.add_argument("--python", type=pathlib.Path, default=default_python(),
                        help="a Python with torch and transformers (%(default)s)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds a run may take (3600)")
    parser.add_argument("--out", type=pathlib.Path, help="write every run to this JSON file")
    parser.add_argument("--resume", action="store_true",
                        help="keep the rows that --out has already, and measure only the others")
    args = parser.parse_args()
    try:
        args.stages = [int(stage) for stage in args.stages.split(",")]
    except ValueError:
        parser.error("--stages must be numbers with commas, got %s" % args.stages)
    args.variants = list(VARIANTS) if args.variants == "all" else args.variants.split(",")
    if not set(args.stages) <= {1, 2, 3}:
        parser.error("--stages must be of 1, 2, 3, got %s" % args.stages)
    if not set(args.variants) <= set(VARIANTS):
        parser.error("--variants must be of %s, got %s" % (", ".join(VARIANTS), args.variants))
    if args.resume and not args.out:
        parser.error("--resume needs --out")
    if min(args.pairs, args.steps, args.threads) < 1:
        parser.error("--pairs, --steps and --threads must be at least 1")
    return args


def check_programs(args):
    if not os.access(args.lectern, os.X_OK):
        raise Failure("%s: no such program; build it (./test.sh) or name it with --lectern"
                      % args.lectern)
    if not args.config.is_file():
        raise Failure("%s: no such file (--config)" % args.config)
    hint = "scripts/oracle-venv.sh makes the environment; --python or $LECTERN_ORACLE_VENV names another"
    if not os.access(args.python, os.X_OK):
        raise Failure("%s: no such program\n%s" % (args.python, hint))
    check = subprocess.run([args.python, "-c", "import torch, transformers"], text=True,
                           capture_output=True)
    if check.returncode != 0:
        reason = (check.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failure("%s: cannot import torch and transformers: %s\n%s"
                      % (args.python, reason, hint))


def run(command, timeout):
    """Runs a program and returns the JSON object of its last line."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failure("%s: took longer than --timeout %g s"
                      % (" ".join(command), timeout)) from None
    if done.returncode != 0:
        raise Failure("%s: exit status %d\n%s"
                      % (" ".join(command), done.returncode, done.stderr.strip()[-2000:]))
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise Failure("%s: printed no JSON line" % " ".join(command)) from None


def machine(args):
    info = run([args.lectern, "info", "--json"], 60)
    return {"cpu": info["cpu"], "cores": os.cpu_count(), "cpu_features": info["cpu_features"],
            "memory": info["memory"], "system": platform.platform(),
            "lectern_revision": info["git_revision"], "libraries": info["libraries"],
            "load_before": round(os.getloadavg()[0], 2),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}


def name_of(stage, cached):
    return "%d, cache" % stage if cached else str(stage)


def measure(args, stage, variant, modes):
    """The runs of a row for each mode of lectern (False: encoder in the step, True: its cache), which
    take turns with one run of PyTorch: {mode: [(torch, lectern), ...]}."""
    sizes = ["--config", args.config, "--batch", args.batch, "--crops", args.crops,
             "--text", args.text, "--steps", args.steps, "--threads", args.threads,
             "--stage", stage]
    dtype = args.lectern_dtype or variant.split("-")[0]
    pairs = {mode: [] for mode in modes}
    for number in range(args.pairs):
        torch = run([args.python, HERE / "torch_step.py", *sizes, "--variant", variant],
                    args.timeout)
        for cached in modes:
            lectern = run([args.lectern, "bench", "step", *sizes, "--dtype", dtype,
                           *(["--encoder-cache"] if cached else [])], args.timeout)
            if torch["parameters"] != lectern["parameters"]:
                raise Failure("the programs train different models: %d parameters in PyTorch, %d in "
                              "lectern" % (torch["parameters"], lectern["parameters"]))
            pairs[cached].append((torch, lectern))
            print("stage %s, %s, pair %d of %d: PyTorch %.3f s, lectern %.3f s"
                  % (name_of(stage, cached), variant, number + 1, args.pairs,
                     torch["seconds_median"], lectern["seconds_median"]), file=sys.stderr,
                  flush=True)
    return pairs


def summarise(stage, variant, cached, pairs):
    def side(runs):
        return {"name": runs[0]["peer"], "variant": runs[0]["variant"],
                "seconds_min": min(r["seconds_min"] for r in runs),
                "seconds_median": statistics.median(r["seconds_median"] for r in runs),
                "peak_bytes": max(r["peak_bytes"] for r in runs), "runs": runs}
    ratios = [torch["seconds_median"] / lectern["seconds_median"] for torch, lectern in pairs]
    return {"stage": stage, "variant": variant, "cached": cached,
            "torch": side([torch for torch, _ in pairs]),
            "lectern": side([lectern for _, lectern in pairs]),
            "speedup": statistics.median(ratios), "speedup_min": min(ratios),
            "speedup_max": max(ratios)}


def table(rows, about, args):
    first = rows[0]
    lines = [
        "%s, %d of %d cores; %s; lectern %s; load average before %.2f; %s."
        % (about["cpu"], args.threads, about["cores"], first["torch"]["name"],
           about["lectern_revision"], about["load_before"], about["date"]),
        "%s, batch %d, %d crops, %d text tokens; %d pairs of %d timed steps."
        % (args.config.name, args.batch, args.crops, args.text, args.pairs, args.steps),
        "",
        "| stage | PyTorch | s min / median | lectern | s min / median | speed-up (min..max) "
        "| peak MiB, PyTorch | peak MiB, lectern |",
        "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        torch, lectern = row["torch"], row["lectern"]
        lines.append("| %s | %s | %.3f / %.3f | %s | %.3f / %.3f | %.2f (%.2f..%.2f) | %d | %d |" % (
            name_of(row["stage"], row["cached"]), torch["variant"], torch["seconds_min"], torch["seconds_median"],
            lectern["variant"], lectern["seconds_min"], lectern["seconds_median"], row["speedup"],
            row["speedup_min"], row["speedup_max"], torch["peak_bytes"] >> 20,
            lectern["peak_bytes"] >> 20))
    return "\n".join(lines)


def nearest_table(rows):
    """For each stage and dtype of lectern the row in which PyTorch is nearest in speed."""
    lines = ["| stage | dtype | nearest of PyTorch | speed-up (min..max) | peak, lectern / PyTorch |",
             "|---|---|---|---|---|"]
    groups = {}
    for row in rows:
        groups.setdefault((row["stage"], row["cached"], row["lectern"]["variant"]), []).append(row)
    for (stage, cached, dtype), group in sorted(groups.items()):
        row = min(group, key=lambda row: row["speedup"])
        lines.append("| %s | %s | %s | %.2f (%.2f..%.2f) | %.2f |" % (
            name_of(stage, cached), dtype, row["torch"]["variant"], row["speedup"],
            row["speedup_min"], row["speedup_max"],
            row["lectern"]["peak_bytes"] / row["torch"]["peak_bytes"]))
    return "\n".join(lines)


def main():
    args = parse_arguments()
    check_programs(args)
    about = machine(args)
    if about["load_before"] > 0.2 * about["cores"]:
        print("warning: load average %.2f: other programs share this machine, trust only the ratios"
              % about["load_before"], file=sys.stderr)
    rows = []
    if args.resume and args.out.is_file():
        rows = json.loads(args.out.read_text())["rows"]
    known = {(row["stage"], row["variant"], row["cached"]) for row in rows}
    for variant in args.variants:
        for stage in args.stages:
            modes = [cached for cached in ([False, True] if args.cached and stage == 3 else [False])
                     if (stage, variant, cached) not in known]
            if not modes:
                continue
            rows += [summarise(stage, variant, cached, pairs)
                     for cached, pairs in measure(args, stage, variant, modes).items()]
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    rows.sort(key=lambda row: (row["stage"], row["cached"], VARIANTS.index(row["variant"])))
    print(table(rows, about, args))
    print()
    print(nearest_table(rows))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit("compare_torch.py: %s" % failure)
    except KeyboardInterrupt:
        sys.exit("compare_torch.py: interrupted")
