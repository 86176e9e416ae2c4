#!/usr/bin/env python3
"""LoRA on DeepSeek-OCR 2 with PyTorch, transformers and peft: the peer of `lectern train` with [lora].

Weights and pages are random: neither changes what a step costs. The base is bf16 without gradients, pairs are f32 on
the decoder's attention, dense and shared MLP; a step is `--pages` pages, one after the other, then AdamW.
Prints one JSON line: seconds of each step, peak resident memory.

    /work/oracle-venv/bin/python bench/peers/torch_lora.py --config bench/peers/full.json --crops 6 --text 1050
"""
import argparse
import json
import os
import resource
import time

import peft
import torch
from transformers import DeepseekOcr2Config, DeepseekOcr2ForConditionalGeneration

TARGETS = (r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|"
           r"mlp\.(shared_experts\.)?(gate|up|down)_proj)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--crops", type=int, default=6)
    parser.add_argument("--text", type=int, default=1024)
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = DeepseekOcr2Config(**json.load(open(args.config, encoding="utf-8")))
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = DeepseekOcr2ForConditionalGeneration(config)
    model = model.to_empty(device="cpu")
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
        for buffer in model.buffers():
            buffer.uniform_(0.0, 1.0) if buffer.is_floating_point() else buffer.zero_()
    if args.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model = peft.get_peft_model(model, peft.LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=TARGETS))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    n_image = args.crops * 144 + 256 + 1
    ids = torch.randint(10, 1000, (1, 1 + n_image + args.text))
    ids[:, 1:1 + n_image] = config.image_token_id
    labels = ids.clone()
    labels[:, :1 + n_image] = -100
    batch = dict(input_ids=ids, labels=labels, attention_mask=torch.ones_like(ids),
                 pixel_values=torch.randn(1, 3, 1024, 1024).bfloat16(), num_local_patches=[args.crops])
    if args.crops:
        batch["pixel_values_local"] = torch.randn(args.crops, 3, 768, 768).bfloat16()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        for _ in range(args.pages):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(**batch).loss
            (loss / args.pages).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(round(time.perf_counter() - start, 1))
    print(json.dumps(dict(peer=f"torch {torch.__version__}, peft {peft.__version__}", threads=args.threads,
                          tokens=ids.numel() * args.pages, trained=sum(p.numel() for p in trained), seconds=seconds,
                          peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)))


if __name__ == "__main__":
    main()
