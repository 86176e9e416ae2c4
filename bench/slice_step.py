#!/usr/bin/env python3
"""Predicts one training step of the full-size model from slices of a few layers that fit this machine.

Runs `lectern bench step` at full width with few layers: one layer more of a kind takes so much longer and
so many bytes more, and the rest stays. The whole model is the smallest slice plus its missing layers.

    bench/slice_step.py                              # stage 1, one page of one view, 256 text tokens
    bench/slice_step.py --dtype bf16 --stage 3

The vision tokenizer is whole in every slice. Prints one Markdown table.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile

from compare_torch import HERE, ROOT, Failure, machine, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, default=HERE / "peers/full.json")
    parser.add_argument("--lectern", type=pathlib.Path, default=ROOT / "build/lectern")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--stage", type=int, choices=[1, 2, 3], default=1)
    parser.add_argument("--batch", type=int, default=1, help="pages a step (1)")
    parser.add_argument("--crops", type=int, default=0, help="768x768 views a page (0)")
    parser.add_argument("--text", type=int, default=256, help="text tokens a page (256)")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a slice (2)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--timeout", type=float, default=3600, help="seconds a run may take (3600)")
    return parser.parse_args()


def sliced(whole, encoder_layers, mlp_layers):
    config = json.loads(json.dumps(whole))
    config["vision_config"]["encoder_config"]["num_hidden_layers"] = encoder_layers
    config["text_config"]["num_hidden_layers"] = len(mlp_layers)
    config["text_config"]["mlp_layer_types"] = mlp_layers
    return config


def measure(args, config, folder, name):
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    result = run([args.lectern, "bench", "step", "--config", path, "--batch", args.batch, "--crops",
                  args.crops, "--text", args.text, "--steps", args.steps, "--threads", args.threads,
                  "--dtype", args.dtype, "--stage", args.stage], args.timeout)
    print("%s: %.2f s, %.2f GB" % (name, result["seconds_min"], result["peak_bytes"] / 1e9),
          file=sys.stderr, flush=True)
    return {"parameters": result["parameters"], "seconds": result["seconds_min"],
            "bytes": result["peak_bytes"]}


def main():
    args = parse_arguments()
    whole = json.loads(args.config.read_text())
    kinds = whole["text_config"]["mlp_layer_types"]
    encoder_layers = whole["vision_config"]["encoder_config"]["num_hidden_layers"]
    about = machine(args)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base = measure(args, sliced(whole, 1, ["dense"]), folder, "1 + dense")
        encoder = measure(args, sliced(whole, 2, ["dense"]), folder, "2 + dense")
        both = measure(args, sliced(whole, 2, ["dense", "sparse"]), folder, "2 + dense, sparse")
    predicted = {key: base[key] + (encoder_layers - 1) * (encoder[key] - base[key])
                 + kinds.count("sparse") * (both[key] - encoder[key]) for key in base}
    print("%s, %d of %d cores; lectern %s, %s, stage %d; batch %d, %d crops, %d text tokens; %s."
          % (about["cpu"], args.threads, about["cores"], about["lectern_revision"], args.dtype,
             args.stage, args.batch, args.crops, args.text, about["date"]))
    print("\n| encoder layers | decoder layers | parameters | seconds a step | peak GB |\n|---|---|---|---|---|")
    rows = [("1", "dense", base), ("2", "dense", encoder), ("2", "dense, sparse", both),
            ("%d" % encoder_layers, "dense, %d sparse: **predicted**" % kinds.count("sparse"), predicted)]
    for encoder_text, decoder_text, row in rows:
        print("| %s | %s | %.2f B | %.2f | %.1f |" % (encoder_text, decoder_text, row["parameters"] / 1e9,
                                                   row["seconds"], row["bytes"] / 1e9))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit("slice_step.py: %s" % failure)
    except KeyboardInterrupt:
        sys.exit("slice_step.py: interrupted")
