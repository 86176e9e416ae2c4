#!/usr/bin/env python3
"""Writes the card of the shipped model: README.md, curve.svg, curve.json and the recipes as they ran.

Called by scripts/ship-nano.sh. Every figure is read from a file: metrics.jsonl and config.toml of the runs,
scores.json and results.json of the evaluation, manifest.json of the data, the header of model.safetensors.
"""
import argparse
import json
import math
import pathlib
import re
import struct

LEVELS = ("word", "line", "region", "page")
COLOURS = {"words": "#3566c0", "lines": "#c4702b", "regions": "#2f8a63"}
STAGES = {
    "pretrain": ("1", "everything trains, from nothing, through the levels of the curriculum"),
    "stage2": ("2", "vision tokenizer frozen; LM encoder and decoder train"),
    "stage3": ("3", "encoder frozen; the decoder trains"),
}


def read_stage(run, stage, end):
    """Totals and held-out figures of one run up to the step of its checkpoint."""
    out = {"steps": 0, "samples": 0, "seconds": 0.0, "evaluations": [], "levels": []}
    last_level = ""
    for line in (run / stage / "metrics.jsonl").read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a last line that was cut off
        if record["step"] > end:
            break
        out["steps"] = record["step"]
        if "samples" in record:
            out["samples"] += record["samples"]
            out["seconds"] += record.get("seconds") or 0
            if record.get("level") != last_level:
                last_level = record.get("level")
                out["levels"].append((out["samples"], last_level))
        if "eval_cer" in record:
            figures = {k[9:]: v for k, v in record.items() if k.startswith("eval_cer/")}
            out["evaluations"].append((out["samples"], figures or {"held out": record["eval_cer"]}))
    return out


def toml_value(text, table, key):
    """A plain value of the resolved recipe; "" when it is not there."""
    at = ""
    for line in text.splitlines():
        if line.startswith("["):
            at = line.strip("[] ")
        elif at == table and line.split(" = ")[0] == key:
            return line.split(" = ", 1)[1].strip('"')
    return ""


def portable(text, run, data, run_folders):
    """The recipe with the paths that scripts/nano-data.sh and the recipes use."""
    for folder, name in run_folders.items():
        text = text.replace(f'"{folder}"', f'"out/nano/{name}"')
    for folder in sorted({str(run), str(data), str(run.resolve()), str(data.resolve())}, key=len, reverse=True):
        text = re.sub(f'"{re.escape(folder)}(/|")', r'"out/nano\1', text)
    config = toml_value(text, "model", "config")
    if not config.startswith("out/nano"):
        text = text.replace(f'config = "{config}"', 'config = "recipes/nano"')
    return text


def curve(stages):
    """SVG of the held-out error over the samples seen, all stages in a row."""
    width, height, left, bottom, top = 720, 300, 46, 34, 14
    total = sum(stage["samples"] for _, stage in stages) or 1
    worst = max((v for _, s in stages for _, f in s["evaluations"] for v in f.values()), default=1)
    high = max(1.0, math.ceil(worst * 10) / 10)
    x = lambda samples: left + (width - left - 12) * samples / total
    y = lambda value: top + (height - top - bottom) * (1 - min(value, high) / high)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#555">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for i in range(6):
        value = high * i / 5
        out.append(f'<line x1="{left}" x2="{width - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e4e0da"/>')
        out.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for i in range(6):
        at = total * i / 5
        out.append(f'<text x="{x(at):.1f}" y="{height - 16}" text-anchor="middle">{at / 1000:.0f}k</text>')
    out.append(f'<text x="{width / 2}" y="{height - 3}" text-anchor="middle">samples seen</text>')
    series, begin = {}, 0
    for name, stage in stages:
        for at, level in stage["levels"]:
            if level is None and at > 0 and begin == 0:
                continue
            label = f"level {level}" if level else f"stage {STAGES[name][0]}"
            place = x(begin + at) if at > stage["levels"][0][0] else x(begin)
            out.append(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{height - bottom}" '
                       'stroke="#999" stroke-dasharray="3 3"/>')
            out.append(f'<text x="{place + 4:.1f}" y="{top + 10}">{label}</text>')
        for at, figures in stage["evaluations"]:
            for key, value in figures.items():
                series.setdefault(key, []).append((x(begin + at), y(value)))
        begin += stage["samples"]
    for i, (key, points) in enumerate(series.items()):
        colour = COLOURS.get(key, "#777")
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{width - 20}" y="{top + 26 + 14 * i}" text-anchor="end" fill="{colour}">{key}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def curve_json(stages):
    """The curve's points, which quickstart's report draws again."""
    series, begin = {}, 0
    for _, stage in stages:
        for at, figures in stage["evaluations"]:
            for key, value in figures.items():
                points = series.setdefault(key, {"samples": [], "cer": []})
                points["samples"].append(begin + at)
                points["cer"].append(round(value, 5))
        begin += stage["samples"]
    return {"samples": begin, "seconds": round(sum(stage["seconds"] for _, stage in stages), 1), "held_out": series}


def duration(seconds):
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def percent(value):
    return f"{100 * value:.1f} %"


def parameters(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(math.prod(v["shape"]) for k, v in header.items() if k != "__metadata__")


def level_rows(results, documents):
    out = []
    for level in results["levels"]:
        rows = [(d["document"], d) for d in level["documents"]] if documents else [("all", level)]
        for name, row in rows:
            ours, other = row["lectern"], row["tesseract"]
            out.append(f"| {level['level']} | {name} | {row['pieces']} | {percent(ours['cer'])} | "
                       f"{ours['edit_distance']:.3f} | {percent(ours['repetition_rate'])} | "
                       f"{percent(other['cer'])} | {other['edit_distance']:.3f} | "
                       f"{percent(other['repetition_rate'])} |")
    return out


def stage_rows(stages, recipes, scores):
    out = []
    for name, stage in stages:
        cells = []
        for level in LEVELS:
            path = scores[name] / level / "scores.json"
            cells.append(percent(json.loads(path.read_text())["cer"]) if path.exists() else "–")
        rate = toml_value(recipes[name], "optimizer", "learning_rate")
        out.append(f"| {STAGES[name][0]}: {STAGES[name][1]} | {stage['steps']} | {stage['samples']} | "
                   f"{duration(stage['seconds'])} | {rate} | {toml_value(recipes[name], '', 'seed')} | "
                   + " | ".join(cells) + " |")
    return out


def data_rows(manifest):
    out = []
    for document in sorted(manifest["mixture"], key=lambda d: (d["split"], d["document"])):
        out.append(f"| {document['split']} | {document['source']} | {document['pages']} | `{document['sha256']}` |")
    return out


def card(args, stages, recipes, scores):
    results = json.loads((args.model / "scores.json").read_text())
    config = json.loads((args.model / "config.json").read_text())
    manifest = json.loads((args.data / "shards" / "manifest.json").read_text())
    size = (args.model / "model.safetensors").stat().st_size
    view = config["lectern"]["global_size"]
    samples = sum(stage["samples"] for _, stage in stages)
    seconds = sum(stage["seconds"] for _, stage in stages)
    levels = {level["level"]: level["lectern"]["cer"] for level in results["levels"]}
    figures = ", ".join(f"{percent(v)} of the characters of {k}s wrong" for k, v in levels.items())
    head = ("| level | document | pieces | CER | edit distance | loops | tesseract: CER | edit distance | loops |\n"
            "|---|---|---|---|---|---|---|---|---|")
    launch = f"mpirun -np {args.ranks} " if args.ranks > 1 else ""
    commands = "\n".join(f"    {launch}build/lectern train recipes/nano/{name}.toml" for name, _ in stages)
    return f"""# nano

A small DeepSeek-OCR 2 that lectern trained from nothing: {parameters(args.model / 'model.safetensors') / 1e6:.2f} million
parameters, {size / 1e6:.1f} MB ({config['dtype']}), a view of {view} x {view} pixels, {samples} samples in {duration(seconds)} of
training. On documents that no training saw: {figures}. It reads pages as runs of words, Latin letters (ASCII) only.

    build/lectern ocr page.pdf                 # takes this model when none is named
    build/lectern eval --checkpoint recipes/nano --shards out/nano/shards/validation --level word --samples 500

This card is written by `scripts/ship-nano.sh` from the files of the run; no figure in it was typed.

## How well it reads, beside tesseract
{results['tesseract']}; the same pictures for both, scored after NFKC and with runs of white space as one space. CER:
edits / true characters; edit distance: mean of edits / longer length; loops: readings that end in a repetition.
`scores.json` has the same figures.

{head}
{chr(10).join(level_rows(results, False))}

By document:

{head}
{chr(10).join(level_rows(results, True))}

## What each stage added
Character error rates on the same held-out words, lines, regions and pages after each stage (`lectern eval`, without
normalisation; the last row is the shipped bf16 model).

| stage | steps | samples | training time | rate | seed | words | lines | regions | pages |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(stage_rows(stages, recipes, scores))}

![held-out character error rate over samples](curve.svg)

Held-out character error rates during training, {toml_value(recipes[stages[0][0]], 'evaluation', 'samples')} samples of each kind a point; the levels are those of stage 1's curriculum. Training time is that of the steps
alone, on the machine where the run was made, beside whatever else ran there.

## Data
Words, lines and regions cut from these documents (`scripts/nano-data.sh` fetches the Debian packages), and the
same drawn from the text of the training documents in many fonts. The validation documents were used for nothing but the
figures above and the curriculum's decisions; `installation-guide` was not used at all.

| split | document | pages | SHA-256 of the file |
|---|---|---|---|
{chr(10).join(data_rows(manifest))}

## To make it again
lectern at revision {args.revision or 'not recorded'}; the recipes beside this card are those of the run with every default written
out, and with the paths of `scripts/nano-data.sh`.

    scripts/nano-data.sh
{commands}
    scripts/ship-nano.sh out/nano
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--revision", default="")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("scores", nargs="+", help="STAGE=FOLDER of eval-beside-tesseract.sh")
    args = parser.parse_args()
    scores = {name: pathlib.Path(folder) for name, folder in (one.split("=", 1) for one in args.scores)}
    stages = [(name, read_stage(args.run, name, int(re.search(r"-step-(\d+)", folder.name)[1])))
              for name, folder in scores.items()]
    texts = {name: (args.run / name / "config.toml").read_text() for name in scores}
    run_folders = {toml_value(text, "", "run_dir"): name for name, text in texts.items()}
    recipes = {name: portable(text, args.run, args.data, run_folders) for name, text in texts.items()}
    for name, text in recipes.items():
        (args.model / f"{name}.toml").write_text(text)
    (args.model / "curve.svg").write_text(curve(stages))
    (args.model / "curve.json").write_text(json.dumps(curve_json(stages)) + "\n")
    (args.model / "README.md").write_text(card(args, stages, recipes, scores))


if __name__ == "__main__":
    main()
