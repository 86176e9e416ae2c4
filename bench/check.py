#!/usr/bin/env python3
"""Counts the instructions of key operations at tiny sizes and compares them with the baseline.

Instruction counts repeat where times do not, so a change that makes an operation slower by doing
more shows up on any machine, busy or not. They say nothing about caches and memory.

    bench/check.py                    # every operation; exit status 1 when one grew by over 5 %
    bench/check.py gemm_f32 linear    # some
    bench/check.py --few              # the smallest, as ./test.sh does
    bench/check.py --update           # write bench/instructions.json anew

Needs valgrind (callgrind), which knows no AVX-512: the operations are compiled apart, for AVX2
(target check_ops, -march=x86-64-v3), so this checks the same source with narrower vectors, and
bf16 products through f32 arithmetic. One thread. Counts depend on the compiler: with another than the
baseline's nothing is compared, and the exit status is 77 ("skipped").
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
BASELINE = HERE / "instructions.json"
FEW = ("gemm_f32", "gelu", "swiglu", "convert", "adamw")
SKIPPED = 77


class Failure(Exception):
    """A message for the user; the program ends with it."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="operations (all)")
    parser.add_argument("--few", action="store_true", help="only " + ", ".join(FEW))
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--bound", type=float, default=5, help="growth that fails, percent (5)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build",
                        help="configured build folder (%(default)s)")
    return parser.parse_args()


def build(folder):
    """The program, compiled if it is not up to date, and the compiler's name and version."""
    if not (folder / "CMakeCache.txt").is_file():
        raise Failure("%s: not a configured build folder; run cmake -S . -B build -G Ninja" % folder)
    done = subprocess.run(["cmake", "--build", folder, "--target", "check_ops"], text=True,
                          capture_output=True)
    if done.returncode != 0:
        raise Failure("cannot build check_ops:\n" + (done.stdout + done.stderr)[-3000:])
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", (folder / "CMakeCache.txt").read_text(),
                         re.MULTILINE).group(1)
    version = subprocess.run([compiler, "--version"], text=True, capture_output=True, check=True)
    return folder / "bench/check_ops", version.stdout.splitlines()[0]


def count(program, case):
    """Instructions of one run of the operation, callees included."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                           "--toggle-collect=lectern_counted", program, case],
                          text=True, capture_output=True, env=environment)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise Failure("%s under valgrind: exit status %d\n%s"
                      % (case, done.returncode, done.stderr[-2000:]))
    return int(found.group(1))


def main():
    args = parse_arguments()
    if shutil.which("valgrind") is None:
        print("check.py: skipped: valgrind is not installed (apt-get install valgrind)")
        return SKIPPED
    program, compiler = build(args.build)
    known = subprocess.run([program, "--list"], text=True, capture_output=True,
                           check=True).stdout.split()
    cases = args.cases or (FEW if args.few else known)
    unknown = [case for case in cases if case not in known]
    if unknown:
        raise Failure("no such operation: %s; there are %s" % (unknown[0], ", ".join(known)))
    baseline = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    if not args.update and baseline.get("compiler") != compiler:
        print("check.py: skipped: the baseline is of %s, this is %s"
              % (baseline.get("compiler", "nothing yet"), compiler))
        return SKIPPED
    counts = {case: count(program, case) for case in cases}
    if args.update:
        kept = baseline.get("instructions", {}) if baseline.get("compiler") == compiler else {}
        BASELINE.write_text(json.dumps({"compiler": compiler, "instructions": {**kept, **counts}},
                                       indent=1) + "\n")
        print("wrote %s: %d operations" % (BASELINE, len(counts)))
        return 0
    grown = []
    for case, instructions in counts.items():
        before = baseline["instructions"].get(case)
        if before is None:
            raise Failure("%s: has no baseline; run bench/check.py --update %s" % (case, case))
        change = 100 * (instructions / before - 1)
        if change > args.bound:
            grown.append(case)
        print("%-22s %10d  baseline %10d  %+6.1f %%%s"
              % (case, instructions, before, change, "  TOO MANY" if change > args.bound else ""))
    if grown:
        print("check.py: %s grew by more than %g %%; if that is wanted, run --update and say why in "
              "the commit" % (", ".join(grown), args.bound))
    return 1 if grown else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit("check.py: %s" % failure)
