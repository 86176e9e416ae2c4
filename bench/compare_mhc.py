#!/usr/bin/env python3
"""Residual streams (mHC) against PyTorch: runs bench/peers/torch_mhc.py (transformers' deepseek_v4 module)
and `lectern bench mhc` in turn, A B A B, each in a process of its own, and prints the ratios.

    scripts/oracle-venv.sh && bench/compare_mhc.py --pairs 3
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent


def run(command):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit("compare_mhc.py: %s\n%s" % (" ".join(map(str, command)), done.stderr[-2000:]))
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["what"]: line for line in lines}


def main():
    python = pathlib.Path(os.environ.get("LECTERN_ORACLE_VENV", ROOT / "build/oracle-venv"))
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (3)")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--sinkhorn-tokens", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=3, help="timed runs in a process (3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--lectern", type=pathlib.Path, default=ROOT / "build/lectern")
    parser.add_argument("--python", type=pathlib.Path, default=python / "bin/python3")
    args = parser.parse_args()
    sizes = ["--tokens", args.tokens, "--sinkhorn-tokens", args.sinkhorn_tokens,
             "--threads", args.threads, "--repeat", args.repeat]
    pairs = [(run([args.python, HERE / "peers/torch_mhc.py", *sizes]),
              run([args.lectern, "bench", "mhc", *sizes])) for _ in range(args.pairs)]

    print("%d tokens, %d of Sinkhorn, %d threads, f32, forward + backward; seconds are the smallest of "
          "%d runs, medians over %d pairs" % (args.tokens, args.sinkhorn_tokens, args.threads,
                                               args.repeat, args.pairs))
    print("| what | PyTorch, s | lectern, s | ratio (min..max) |\n|---|---|---|---|")
    rows = [("Sinkhorn alone", "sinkhorn", "seconds_min"),
            ("mHC sub-layer around the identity", "mhc sub-layer alone", "seconds_min"),
            ("decoder layer, plain", "decoder layer", "plain_min"),
            ("decoder layer, mHC", "decoder layer", "mhc_min")]
    for name, what, field in rows:
        torch = [pair[0][what][field] for pair in pairs]
        ours = [pair[1][what][field] for pair in pairs]
        ratios = [a / b for a, b in zip(torch, ours)]
        print("| %s | %.5f | %.5f | %.1f (%.1f..%.1f) |"
              % (name, statistics.median(torch), statistics.median(ours),
                 statistics.median(ratios), min(ratios), max(ratios)))
    overhead = [[pair[side]["decoder layer"]["overhead"] for pair in pairs] for side in (0, 1)]
    print("| overhead of mHC on the layer | %s | %s | |" % tuple(
        "%.1f %% (%.1f..%.1f)" % (100 * statistics.median(o), 100 * min(o), 100 * max(o))
        for o in overhead))


if __name__ == "__main__":
    main()
