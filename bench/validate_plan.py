#!/usr/bin/env python3
"""What `lectern plan` predicts for ranks of this machine beside what they take: steps of 1, 2 and 4
ranks and of a pipeline, in turn, several rounds. Wants a quiet machine; about three minutes.

  bench/validate_plan.py [--data out/quickstart] [--steps 40] [--rounds 3] [--json FILE]

`--data`: a folder that ./quickstart.sh left (shards and tokenizer). Prints a Markdown table; the
measured figure is the median over the rounds of the median step after the tenth.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

MESHES = [(1, []), (2, []), (4, []), (2, ["mesh.pp=2"])]


def arguments(args, ranks, more):
    values = ["threads=1", "batch.global_size=64", "batch.micro_batch=8", "evaluation.samples=0",
              "checkpoint.every=0", "log.tensorboard=false", "optimizer.warmup_steps=5",
              f"data.shards=[\"{args.data}/shards/train\"]",
              f"data.validation={args.data}/shards/validation",
              f"data.tokenizer={args.data}/tokenizer.json", *more]
    return [word for value in values for word in ("--set", value)]


def predict(args, ranks, more):
    command = [args.program, "plan", args.recipe, "--gpus", str(ranks), "--gpu", "cpu", "--json",
               *arguments(args, ranks, more)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["meshes"][0]


def measure(args, ranks, more, split, folder):
    run = os.path.join(folder, f"{ranks}-{len(more)}")
    subprocess.run(["rm", "-rf", run], check=True)
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
    command = launcher + [args.program, "train", args.recipe,
                          *arguments(args, ranks, more + (["mesh.split=" + json.dumps(split)] if more else [])),
                          "--set", f"steps={args.steps}", "--set", f"run_dir={run}"]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    with open(os.path.join(run, "metrics.jsonl")) as lines:
        steps = [json.loads(line) for line in lines]
    steps = [step for step in steps if "seconds" in step and step["step"] > 10]
    return statistics.median(step["seconds"] for step in steps), max(step["peak_bytes"] for step in steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default="build/lectern")
    parser.add_argument("--recipe", default="recipes/configs/quickstart/stage1.toml")
    parser.add_argument("--data", default="out/quickstart")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.steps < 20:
        parser.error("--steps must be at least 20")
    rows = []
    with tempfile.TemporaryDirectory(prefix="lectern-validate-") as folder:
        predicted = [[] for _ in MESHES]
        measured = [[] for _ in MESHES]
        peaks = [0] * len(MESHES)
        for _ in range(args.rounds):
            for i, (ranks, more) in enumerate(MESHES):
                predicted[i].append(predict(args, ranks, more))
                seconds, peaks[i] = measure(args, ranks, more, predicted[i][0]["split"], folder)
                measured[i].append(seconds)
        for i, (ranks, more) in enumerate(MESHES):
            want = statistics.median(measured[i])
            got = statistics.median(plan["seconds"] for plan in predicted[i])
            memory = predicted[i][0]["memory"]["total"]
            rows.append({"ranks": ranks, "mesh": " ".join(more) or "data parallel", "measured": want,
                         "rounds": measured[i], "predicted": got, "error": got / want - 1,
                         "peak_bytes": peaks[i], "predicted_bytes": memory,
                         "memory_error": memory / peaks[i] - 1})
    print("| ranks, one thread each | measured s a step | predicted | error | measured peak MB | predicted | error |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['ranks']}, {row['mesh']} | {row['measured']:.3f} | {row['predicted']:.3f} | "
              f"{100 * row['error']:+.0f} % | {row['peak_bytes'] / 1e6:.0f} | "
              f"{row['predicted_bytes'] / 1e6:.0f} | {100 * row['memory_error']:+.0f} % |")
    if args.json:
        with open(args.json, "w") as out:
            json.dump(rows, out, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
