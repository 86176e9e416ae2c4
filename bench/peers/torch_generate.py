#!/usr/bin/env python3
"""Time greedy generation of DeepSeek-OCR 2 in PyTorch + transformers: prefill and tokens per second. One JSON line.

    torch_generate.py --config full.json --dtype bfloat16 --crops 0 --new 32
    torch_generate.py --config full.json --dtype bfloat16 --checkpoint DIR      # weights from a file

A checkpoint's weights are copied into memory of PyTorch's own, as random ones are in: its loader leaves
some in the mapped file and others twice. peak_bytes is the largest resident size from then on.
"""
import argparse, gc, json, re, time
import torch
from transformers import DeepseekOcr2Config, DeepseekOcr2ForConditionalGeneration

ap = argparse.ArgumentParser()
ap.add_argument("--config", required=True); ap.add_argument("--dtype", default="bfloat16"); ap.add_argument("--crops", type=int, default=0)
ap.add_argument("--new", type=int, default=32); ap.add_argument("--batch", type=int, default=1); ap.add_argument("--threads", type=int, default=2); ap.add_argument("--device", default="cpu")
ap.add_argument("--checkpoint", help="folder with model.safetensors; default: random weights")
args = ap.parse_args()
torch.set_num_threads(args.threads); torch.manual_seed(0); dtype = getattr(torch, args.dtype)
config = DeepseekOcr2Config(**json.load(open(args.config)))
torch.set_default_dtype(dtype)


def random_model():
    with torch.device("meta"): model = DeepseekOcr2ForConditionalGeneration(config)
    model = model.to_empty(device=args.device)
    with torch.no_grad():
        for name, p in model.named_parameters(): p.fill_(1.0) if "norm" in name and name.endswith("weight") and p.dim() == 1 else p.uniform_(-0.03, 0.03)
        for module in model.modules():                              # rotary tables were left unset by to_empty
            if hasattr(module, "inv_freq"):
                fresh = type(module)(module.config)
                for k, v in fresh.named_buffers(recurse=False): setattr(module, k, v.to(args.device))
    return model


def peak_bytes():
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1)) * 1024


def read_model():
    model = DeepseekOcr2ForConditionalGeneration.from_pretrained(args.checkpoint, config=config, dtype=dtype).to(args.device)
    with torch.no_grad():
        for p in model.parameters(): p.data = p.data.clone()
    gc.collect()
    return model


start = time.perf_counter()
model = read_model() if args.checkpoint else random_model()
model.eval(); model.generation_config.eos_token_id = None; model.generation_config.pad_token_id = 2
load_seconds, load_peak = time.perf_counter() - start, peak_bytes()
open("/proc/self/clear_refs", "w").write("5")                       # VmHWM begins anew
n_image = args.crops * 144 + 257
ids = torch.full((args.batch, 1 + n_image + 8), 7, device=args.device); ids[:, 1:1 + n_image] = config.image_token_id
inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(args.batch, 3, 1024, 1024, device=args.device), num_local_patches=[args.crops] * args.batch)
if args.crops: inputs["pixel_values_local"] = torch.randn(args.batch * args.crops, 3, 768, 768, device=args.device)


def run(new):
    """Seconds after which the logits of each token were there."""
    times = []
    def note(ids, scores):
        if args.device == "cuda": torch.cuda.synchronize()
        times.append(time.perf_counter() - t)
        return scores
    t = time.perf_counter()
    with torch.no_grad(): model.generate(**inputs, do_sample=False, min_new_tokens=new, max_new_tokens=new, logits_processor=[note])
    return times


run(2)                                                              # warms up, as lectern's side does
runs = [run(1 + args.new) for _ in range(3)]
first = min(times[0] for times in runs); rest = min(times[-1] - times[0] for times in runs)
print(json.dumps(dict(peer="torch %s" % torch.__version__, dtype=args.dtype, threads=args.threads, batch=args.batch, crops=args.crops,
                      parameters=sum(p.numel() for p in model.parameters()), seconds_to_first_token=round(first, 3),
                      tokens_per_second=round(args.batch * args.new / rest, 3), peak_bytes=peak_bytes(),
                      load_seconds=round(load_seconds, 3), load_peak_bytes=load_peak)))
