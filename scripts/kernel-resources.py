#!/usr/bin/env python3
"""Registers, stack and spills of every kernel, from what ptxas says while lectern_cuda is compiled.

usage: ninja -C BUILD -t clean lectern_cuda && ninja -C BUILD lectern_cuda | scripts/kernel-resources.py
One row a kernel, over its instances and architectures; instances that spill are listed below.
"""
import collections
import re
import subprocess
import sys

instances = {}  # (mangled name, architecture) -> [registers, stack, spilled bytes]
at = None
for line in sys.stdin:
    if found := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
        at = found.groups()
        instances[at] = [0, 0, 0]
    elif at and (found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line)):
        instances[at][1:] = map(int, found.groups())
    elif at and (found := re.search(r"Used (\d+) registers", line)):
        instances[at][0] = int(found[1])
if not instances:
    sys.exit("kernel-resources: the input has no lines of ptxas")

names = sorted({name for name, _ in instances})
readable = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
short = {}
for name, text in zip(names, readable.stdout.splitlines()):
    text = re.sub(r"^void |lectern::cuda::|\(anonymous namespace\)::|lectern::", "", text)
    short[name] = re.sub(r"\(.*", "", text)
kernels = collections.defaultdict(list)
for (name, _), figures in instances.items():
    kernels[re.sub(r"<.*", "", short[name])].append(figures)
print("| kernel | instances | registers | stack, bytes | spilled, bytes |\n|---|---|---|---|---|")
for kernel, rows in sorted(kernels.items()):
    low, high = min(r[0] for r in rows), max(r[0] for r in rows)
    print(f"| {kernel} | {len(rows)} | {low} to {high} | {max(r[1] for r in rows)} | {max(r[2] for r in rows)} |")
for (name, architecture), (registers, stack, spilled) in sorted(instances.items(), key=lambda i: short[i[0][0]]):
    if spilled:
        print(f"spills: {short[name]} {architecture}: {spilled} bytes, {registers} registers, stack {stack}")
