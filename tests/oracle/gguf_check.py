#!/usr/bin/env python3
"""Exports ../shared/fixtures/ocr2_gguf to GGUF in every type and gives the files to llama.cpp.

usage: gguf_check.py --lectern BINARY [--shared FOLDER]

Each pair of files goes through ../shared/oracle/check_gguf.py (keys, tensors, token ids, greedy tokens and
log-probabilities against values that transformers computed), and every Q8_0 and Q4_0 tensor is compared, to the
bit, with what gguf-py makes of the same weights. One line a comparison; exits 1 when one fails, 77 where xllamacpp,
gguf or the shared folder is missing.
"""
import argparse
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import xllamacpp  # noqa: F401  check_gguf.py runs it in a process of its own
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
failures = 0


def report(passed, what):
    global failures
    failures += not passed
    print("ok  " if passed else "FAIL", what, flush=True)


def values(reader):
    return {t.name: t for t in reader.tensors}


def compare_blocks(exact, rounded, what):
    """Every block type's bytes against gguf-py's of the f32 export."""
    count = 0
    for file in ("model.gguf", "mmproj.gguf"):
        one, two = (values(gguf.GGUFReader(os.path.join(folder, file))) for folder in (exact, rounded))
        for name, tensor in two.items():
            if tensor.tensor_type.name not in ("Q8_0", "Q4_0"):
                continue
            count += 1
            source = np.ascontiguousarray(one[name].data, dtype=np.float32)
            want = gguf.quants.quantize(source, tensor.tensor_type)
            if want.tobytes() != tensor.data.tobytes():
                report(False, f"{what}: {name} has other bytes than gguf-py makes")
                return
    report(count > 0, f"{what}: {count} tensors have the bytes that gguf-py makes")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("--lectern", required=True)
    parser.add_argument("--shared", default=os.environ.get("LECTERN_SHARED", os.path.join(here, "../../../shared")))
    arguments = parser.parse_args()
    model = os.path.join(arguments.shared, "fixtures/ocr2_gguf")
    check = os.path.join(arguments.shared, "oracle/check_gguf.py")
    if not os.path.exists(check) or not os.path.exists(os.path.join(model, "reference.npz")):
        print(f"skipped: no oracle in {arguments.shared}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            out = os.path.join(folder, kind)
            subprocess.run([arguments.lectern, "export", "--checkpoint", model, "--format", "gguf", "--type", kind,
                            "--out", out], check=True, stdout=subprocess.DEVNULL)
            ran = subprocess.run([sys.executable, check, model, out, "--reference", os.path.join(model, "reference.npz")],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            line = (ran.stdout.strip().splitlines() or ["no output"])[-1]
            report(ran.returncode == 0, f"{kind}: {line}")
        for kind in ("q8_0", "q4_0"):
            compare_blocks(os.path.join(folder, "f32"), os.path.join(folder, kind), kind)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
