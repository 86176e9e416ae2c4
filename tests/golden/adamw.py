#!/usr/bin/env python3
"""Golden for tests/nn/optim/optimizer_test.cpp: five steps of torch.optim.AdamW with clip_grad_norm_.

usage: adamw.py OUT.safetensors        (needs torch and safetensors; run once, the output is in git)
"w" (6, 5) is decayed; "b" (5) is in a group without decay; "u" (3) has no gradient in steps 0 and 2."""
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
torch.set_num_threads(1)
parameters = {"w": torch.randn(6, 5), "b": torch.randn(5), "u": torch.randn(3)}
parameters = {name: torch.nn.Parameter(value) for name, value in parameters.items()}
out = {f"{name}.start": value.detach().clone() for name, value in parameters.items()}
optimizer = torch.optim.AdamW(
    [
        {"params": [parameters["w"], parameters["u"]], "weight_decay": 0.1},
        {"params": [parameters["b"]], "weight_decay": 0.0},
    ],
    lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False,
)
for step in range(5):
    learning_rate = 1e-2 / (1 + step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    for name, parameter in parameters.items():
        parameter.grad = None
        if name != "u" or step not in (0, 2):
            parameter.grad = torch.randn_like(parameter) * 0.3
            out[f"step{step}.{name}.grad"] = parameter.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0, foreach=False)
    optimizer.step()
    out[f"step{step}.norm"] = norm.reshape(1)
    out[f"step{step}.lr"] = torch.tensor([learning_rate], dtype=torch.float64)
    for name, parameter in parameters.items():
        out[f"step{step}.{name}.value"] = parameter.detach().clone()
for name, parameter in parameters.items():
    state = optimizer.state[parameter]
    out[f"{name}.exp_avg"] = state["exp_avg"].clone()
    out[f"{name}.exp_avg_sq"] = state["exp_avg_sq"].clone()
    out[f"{name}.steps"] = torch.tensor([int(state["step"])], dtype=torch.int32)
save_file(out, sys.argv[1])
