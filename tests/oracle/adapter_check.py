#!/usr/bin/env python3
"""Trains a low-rank adapter with lectern, exports it in every form and lets the engines compute with it.

usage: adapter_check.py --lectern BINARY [--shared FOLDER]

The base is ../shared/fixtures/ocr2_gguf. For each set of targets: `lectern data pairs` of its pictures, a few steps of
stage 3, exports (peft, --merge as hf, gguf-lora where it can be). Compared: transformers + peft on base and adapter with
transformers on the merged folder (log-probabilities within 1e-4, and more than 0.01 from the base: peft leaves out what it
does not find and says no more than a warning); llama.cpp with --lora with llama.cpp on the merged file (within 1e-3). One
line a comparison; exits 1 when one fails, 77 where a package or the shared folder is missing.
"""
import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import urllib.request

try:
    import peft
    import torch
    import transformers
    import xllamacpp
    from PIL import Image
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
PROMPT = "Free OCR."
CASES = (
    # targets, exported for llama.cpp too, exported for peft
    (["decoder.attention", "decoder.mlp"], True, True),
    (["experts"], True, True),
    (["decoder.attention", "experts", "router"], True, False),
    (["lm_encoder", "tokenizer", "projector", "head"], False, True),
)
failures = 0


def report(passed, what):
    global failures
    failures += not passed
    print("ok  " if passed else "FAIL", what, flush=True)


def run(*words, fails=False):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"{' '.join(map(str, words))}\nended with {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stderr


def load(folder):
    model = transformers.DeepseekOcr2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    # The default grouped product refuses small experts on the CPU.
    model.config._experts_implementation = model.config.text_config._experts_implementation = "eager"
    return model


def log_probabilities(model, inputs):
    with torch.no_grad():
        return torch.log_softmax(model(**inputs).logits.double(), -1)


def greedy(model, inputs, steps=8):
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=steps, do_sample=False)
    return out[0, inputs["input_ids"].shape[1]:].tolist()


def serve(job, queue):
    """In a process of its own: llama.cpp ends the process on what it does not like."""
    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.n_ctx, params.n_parallel, params.warmup = 512, 1, False
    params.cpuparams.n_threads = 2
    # Flash attention, and the cache's usual type, round to f16.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if job["lora"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["lora"], 1.0)]
    server = xllamacpp.Server(params)
    request = {"prompt": job["prompt"], "n_predict": 8, "n_probs": 20, "temperature": 0, "top_k": 1, "ignore_eos": True,
               "return_tokens": True, "cache_prompt": False}
    call = urllib.request.Request(server.listening_address + "/completion", json.dumps(request).encode(),
                                  {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(call, timeout=300))
    queue.put((answer["tokens"],
               [{t["id"]: t["logprob"] for t in c["top_logprobs"]} for c in answer["completion_probabilities"]]))


def llama(model, lora=None):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=serve, args=({"model": str(model), "lora": lora and str(lora), "prompt": PROMPT}, queue))
    child.start()
    try:
        return queue.get(timeout=300)
    finally:
        child.kill()
        child.join()


def distance(a, b):
    """Largest difference of log-probabilities over what both lists have, while the tokens are equal."""
    worst = 0.0
    for one, two in zip(a[1], b[1]):
        worst = max([worst] + [abs(one[token] - two[token]) for token in one.keys() & two.keys()])
        if max(one, key=one.get) != max(two, key=two.get):
            break
    return worst


def train(lectern, base, work, targets):
    run(lectern, "train", os.path.join(work, "recipe.toml"), "--set", f"lora.targets={json.dumps(targets)}", "--set",
        f'run_dir="{work}/run"')
    return os.path.join(work, "run")


def check_case(lectern, base, work, inputs, plain, case):
    targets, for_llama, for_peft = case
    name = ", ".join(targets)
    adapter = train(lectern, base, work, targets)
    merged = os.path.join(work, "merged")
    run(lectern, "export", "--checkpoint", adapter, "--format", "hf", "--merge", "--out", merged)
    model = load(merged)
    want, tokens = log_probabilities(model, inputs), greedy(model, inputs)
    moved = (want - plain).abs().max().item()
    report(moved > 0.01, f"{name}: the merged model is {moved:.3f} from the base")
    words = ("export", "--checkpoint", base, "--adapter", adapter, "--format")
    folder = os.path.join(work, "peft")
    if for_peft:
        run(lectern, *words, "peft", "--out", folder)
        model = peft.PeftModel.from_pretrained(load(base), folder)
        model.eval()
        gap = (log_probabilities(model, inputs) - want).abs().max().item()
        report(gap <= 1e-4, f"{name}: peft on the base is {gap:.1e} from the merged model")
        report(greedy(model, inputs) == tokens, f"{name}: peft's greedy tokens are the merged model's")
        again = os.path.join(work, "again")
        run(lectern, "export", "--checkpoint", base, "--adapter", folder, "--format", "hf", "--merge", "--out", again)
        one, two = (open(os.path.join(path, "model.safetensors"), "rb").read() for path in (merged, again))
        report(one == two, f"{name}: the peft folder merges to the same bytes")
    else:
        report("PEFT refuses" in run(lectern, *words, "peft", "--out", folder, fails=True), f"{name}: refused for peft")
    lora = os.path.join(work, "lora")
    if not for_llama:
        report("llama.cpp" in run(lectern, *words, "gguf-lora", "--out", lora, fails=True), f"{name}: refused as gguf-lora")
        return
    run(lectern, *words, "gguf-lora", "--out", lora)
    for source, out in ((base, "base-gguf"), (merged, "merged-gguf")):
        if not os.path.exists(os.path.join(work, out)):
            run(lectern, "export", "--checkpoint", source, "--format", "gguf", "--out", os.path.join(work, out))
    gguf = {key: os.path.join(work, f"{key}-gguf", "model.gguf") for key in ("base", "merged")}
    with_lora, one = llama(gguf["base"], os.path.join(lora, "adapter.gguf")), llama(gguf["merged"])
    gap, moved = distance(with_lora, one), distance(with_lora, llama(gguf["base"]))
    report(gap <= 1e-3 and moved > 0.01, f"{name}: llama.cpp with --lora is {gap:.1e} from the merged file, {moved:.3f} from the base")


RECIPE = """stage = 3
steps = 3
run_dir = "run"
[model]
config = "{base}"
init = "{base}"
[lora]
rank = 4
[data]
shards = ["{work}/pairs/train"]
tokenizer = "{base}/tokenizer.json"
prompt = "<image>\\nFree OCR."
max_text_tokens = 64
[optimizer]
learning_rate = 3e-2
schedule = "constant"
[batch]
global_size = 2
[evaluation]
samples = 0
[encoder_cache]
enabled = false
"""


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("--lectern", required=True)
    parser.add_argument("--shared", default=os.environ.get("LECTERN_SHARED", os.path.join(here, "../../../shared")))
    arguments = parser.parse_args()
    base = os.path.abspath(os.path.join(arguments.shared, "fixtures/ocr2_gguf"))
    if not os.path.isdir(base):
        print(f"skipped: no {base}")
        return 77
    processor = transformers.AutoProcessor.from_pretrained(base)
    picture = Image.open(os.path.join(base, "small.png")).convert("RGB")
    inputs = processor(images=picture, text=f"<image>\n{PROMPT}", return_tensors="pt")
    plain = log_probabilities(load(base), inputs)
    for case in CASES:
        with tempfile.TemporaryDirectory() as work:
            with open(os.path.join(work, "pairs.jsonl"), "w", encoding="utf-8") as file:
                for name, text in (("small", "a small picture"), ("wide", "a wide picture")):
                    print(json.dumps({"image": os.path.join(base, name + ".png"), "text": text}), file=file)
            run(arguments.lectern, "data", "pairs", os.path.join(work, "pairs.jsonl"), "--checkpoint", base, "--out",
                os.path.join(work, "pairs"))
            with open(os.path.join(work, "recipe.toml"), "w", encoding="utf-8") as file:
                file.write(RECIPE.format(base=base, work=work))
            check_case(arguments.lectern, base, work, inputs, plain, case)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
