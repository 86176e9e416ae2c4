#!/usr/bin/env python3
"""How far PyTorch's own bf16 (autocast) drifts from its fp32 on an ocr2 fixture, from the fixture's weights.

    /var/tmp/oracle-venv/bin/python tests/oracle/bf16_drift.py [FIXTURE] [--steps 50]

The yardstick for tests/recipes/train/bf16_training_test.cpp: what two number formats do to the same training
is a property of the weights as much as of an implementation. Prints, for each stage, the distance of the
first step's gradients |fp32 - bf16| / |fp32| over all parameters, and the largest relative difference of
the loss over the steps (AdamW 1e-3, betas 0.9 and 0.95, weight decay 0.1, clipping at 1).
"""
import argparse
import copy
import pathlib

import torch
from safetensors.torch import load_file
from transformers import DeepseekOcr2ForConditionalGeneration
from transformers.utils import logging

FROZEN = {
    1: (),
    2: ("model.vision_tower.sam_encoder.",),
    3: ("model.vision_tower.", "model.multi_modal_projector.", "model.view_separator"),
}


def batch_of(path):
    names = ("input_ids", "attention_mask", "labels", "pixel_values", "pixel_values_local")
    tensors = load_file(path)
    inputs = {name: tensors["in." + name] for name in names if "in." + name in tensors}
    for name in ("input_ids", "attention_mask", "labels"):
        if name in inputs:
            inputs[name] = inputs[name].long()
    inputs["num_local_patches"] = tensors["in.num_local_patches"].tolist()
    return inputs


def train(model, inputs, stage, dtype, steps):
    """(losses, first gradients by name)."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN[stage]) if FROZEN[stage] else True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8,
                                  weight_decay=0.1)
    losses, first = [], None
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        if first is None:
            first = {n: p.grad.clone() for n, p in trained.items() if p.grad is not None}
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        losses.append(loss.item())
        optimizer.step()
    return losses, first


def distance(a, b):
    difference = sum((a[n] - b[n]).double().square().sum() for n in a)
    return (difference / sum(a[n].double().square().sum() for n in a)).sqrt().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("fixture", type=pathlib.Path, nargs="?",
                        default=here.parent / "fixtures/ocr2_A")
    parser.add_argument("--case", default="crop2")
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = DeepseekOcr2ForConditionalGeneration.from_pretrained(
        args.fixture, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager")
    model.eval()
    inputs = batch_of(args.fixture / ("case_%s.safetensors" % args.case))
    print("| stage | gradient distance, step 1 | largest loss difference, %d steps |" % args.steps)
    print("|---|---|---|")
    for stage in (1, 2, 3):
        exact, gradients = train(model, inputs, stage, "fp32", args.steps)
        rounded, others = train(model, inputs, stage, "bf16", args.steps)
        worst = max(abs(a - b) / a for a, b in zip(exact, rounded))
        print("| %d | %.2f %% | %.2f %% |" % (stage, 100 * distance(gradients, others), 100 * worst))


if __name__ == "__main__":
    main()
