#!/usr/bin/env python3
"""Compares reading a page at full size with PyTorch + transformers: same weights file, sizes, threads.

Runs bench/peers/torch_generate.py and `lectern bench generate` in turn (A B A B ...) on one checkpoint
of random bf16 weights, measures the machine's read bandwidth between them, and prints Markdown tables.

    bench/compare_generate.py --weights /var/tmp/lectern-full           # writes the weights once, 6.8 GB
    bench/compare_generate.py --weights DIR --pairs 2 --lectern-batches 1

first = PyTorch's seconds to the first token / lectern's; tokens = lectern's tokens a second / PyTorch's;
above 1 lectern is faster. The tables give the median over the pairs, with the smallest and the largest.
The two programs never run at the same time: PyTorch needs about 9 GB, lectern about 7.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys

from compare_torch import HERE, ROOT, Failure, check_programs, default_python, machine, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs (5)")
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens that are timed (32)")
    parser.add_argument("--weights", type=pathlib.Path, default=ROOT / "build/full-weights",
                        help="folder of the random weights; written when it is missing (%(default)s)")
    parser.add_argument("--lectern-batches", default="1,8",
                        help="pages at once, lectern only beyond the first (1,8)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="CPU threads of both (the cores this process may use)")
    parser.add_argument("--config", type=pathlib.Path, default=HERE / "peers/full.json")
    parser.add_argument("--lectern", type=pathlib.Path, default=ROOT / "build/lectern")
    parser.add_argument("--python", type=pathlib.Path, default=default_python(),
                        help="a Python with torch and transformers (%(default)s)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds a run may take (3600)")
    parser.add_argument("--out", type=pathlib.Path, help="write every run to this JSON file")
    parser.add_argument("--add", action="store_true",
                        help="keep the pairs that --out has already and add these to them")
    args = parser.parse_args()
    try:
        args.lectern_batches = [int(batch) for batch in args.lectern_batches.split(",")]
    except ValueError:
        parser.error("--lectern-batches must be numbers with commas, got %s" % args.lectern_batches)
    if min(args.pairs, args.tokens, args.threads, *args.lectern_batches) < 1:
        parser.error("--pairs, --tokens, --threads and batches must be at least 1")
    return args


def bandwidth(args):
    """Bytes a second; the larger of what memory and the mapped file give."""
    return run([args.lectern, "bench", "bandwidth", "--threads", args.threads, "--file",
                args.weights / "model.safetensors"], args.timeout)


def measure(args):
    """[{batch: (torch or None, lectern), "bandwidth": [...]}, ...], one for each pair."""
    torch_command = [args.python, HERE / "peers/torch_generate.py", "--config", args.config,
                     "--checkpoint", args.weights, "--threads", args.threads, "--new", args.tokens]
    pairs = []
    for number in range(args.pairs):
        rates = [bandwidth(args)]
        torch = run(torch_command, args.timeout)
        rates.append(bandwidth(args))
        lectern = {}
        for batch in args.lectern_batches:
            lectern[batch] = run(
                [args.lectern, "bench", "generate", "--config", args.config, "--checkpoint",
                 args.weights, "--dtype", "bf16", "--batch", batch, "--tokens", args.tokens,
                 "--threads", args.threads], args.timeout)
        rates.append(bandwidth(args))
        first = lectern[args.lectern_batches[0]]
        if torch["parameters"] != first["parameters"]:
            raise Failure("the programs run different models: %d parameters in PyTorch, %d in lectern"
                          % (torch["parameters"], first["parameters"]))
        pairs.append({"torch": torch, "lectern": lectern, "bandwidth": rates})
        print("pair %d of %d: first token %.2f s / %.2f s, tokens/s %.1f / %.1f, read bandwidth %s GB/s"
              % (number + 1, args.pairs, torch["seconds_to_first_token"],
                 first["seconds_to_first_token"], torch["tokens_per_second"],
                 first["tokens_per_second"],
                 ", ".join("%.0f" % (r["memory_bytes_per_second"] / 1e9) for r in rates)),
              file=sys.stderr, flush=True)
    return pairs


def earlier_pairs(args):
    if not (args.add and args.out and args.out.is_file()):
        return []
    pairs = json.loads(args.out.read_text())["pairs"]
    for pair in pairs:
        pair["lectern"] = {int(batch): result for batch, result in pair["lectern"].items()}
    return pairs


def spread(values, form="%.2f"):
    return "%s (%s..%s)" % tuple(form % v for v in
                                 (statistics.median(values), min(values), max(values)))


def share_of_bandwidth(pair, batch):
    """Weights read by decoding, over the best rate of plain reading just before and after."""
    best = max(r["memory_bytes_per_second"] for r in pair["bandwidth"][1:])
    return pair["lectern"][batch]["decode_bytes_per_second"] / best


def table(pairs, about, args):
    one = args.lectern_batches[0]
    torch = [pair["torch"] for pair in pairs]
    lectern = [pair["lectern"][one] for pair in pairs]
    def column(runs, key, scale=1.0, form="%.2f"):
        return spread([r[key] * scale for r in runs], form)
    first = [t["seconds_to_first_token"] / l["seconds_to_first_token"] for t, l in zip(torch, lectern)]
    tokens = [l["tokens_per_second"] / t["tokens_per_second"] for t, l in zip(torch, lectern)]
    memory = [l["peak_bytes"] / t["peak_bytes"] for t, l in zip(torch, lectern)]
    lines = [
        "%s, %d of %d cores; %s; lectern %s; load average before %.2f; %s."
        % (about["cpu"], args.threads, about["cores"], torch[0]["peer"], about["lectern_revision"],
           about["load_before"], about["date"]),
        "%s, %.2f B parameters in bf16, one 1024x1024 page, %d tokens; %d pairs."
        % (args.config.name, torch[0]["parameters"] / 1e9, args.tokens, len(pairs)),
        "",
        "| | PyTorch | lectern | ratio, lectern the better above 1 |", "|---|---|---|---|",
        "| seconds to the first token | %s | %s | %s |" % (
            column(torch, "seconds_to_first_token"), column(lectern, "seconds_to_first_token"),
            spread(first)),
        "| tokens a second after it | %s | %s | %s |" % (
            column(torch, "tokens_per_second", form="%.1f"),
            column(lectern, "tokens_per_second", form="%.1f"), spread(tokens)),
        "| peak resident GB | %s | %s | %s |" % (
            column(torch, "peak_bytes", 1e-9), column(lectern, "peak_bytes", 1e-9),
            spread([1 / m for m in memory])),
        "",
        "Read bandwidth (`lectern bench bandwidth`), GB/s: memory %s, mapped file %s; decoding one "
        "page reads weights at %s of the memory's." % (
            spread([r["memory_bytes_per_second"] / 1e9 for p in pairs for r in p["bandwidth"]], "%.1f"),
            spread([r["mapped_bytes_per_second"] / 1e9 for p in pairs for r in p["bandwidth"]], "%.1f"),
            spread([share_of_bandwidth(pair, one) for pair in pairs])),
        "",
        "| lectern, pages at once | first token s | encoder s a page | prefill tokens/s | decoded tokens/s "
        "| peak GB |", "|---|---|---|---|---|---|"]
    for batch in args.lectern_batches:
        runs = [pair["lectern"][batch] for pair in pairs]
        lines.append("| %d | %s | %s | %s | %s | %s |" % (
            batch, column(runs, "seconds_to_first_token"), column(runs, "encode_seconds", 1.0 / batch),
            column(runs, "prefill_tokens_per_second", form="%.0f"),
            column(runs, "tokens_per_second", form="%.1f"), column(runs, "peak_bytes", 1e-9)))
    return "\n".join(lines)


def main():
    args = parse_arguments()
    check_programs(args)
    if not (args.weights / "model.safetensors").is_file():
        print("writing random weights to %s" % args.weights, file=sys.stderr, flush=True)
        run([args.lectern, "bench", "write-weights", "--config", args.config, "--out", args.weights],
            args.timeout)
    about = machine(args)
    pairs = earlier_pairs(args) + measure(args)
    print(table(pairs, about, args))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": about, "pairs": pairs}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit("compare_generate.py: %s" % failure)
    except KeyboardInterrupt:
        sys.exit("compare_generate.py: interrupted")
