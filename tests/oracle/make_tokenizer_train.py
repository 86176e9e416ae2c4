#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer_train/golden.json: what the `tokenizers` library learns from the
texts of tests/fixtures/tokenizer/*/cases.json (all three files, in the order of the styles).

usage: make_tokenizer_train.py        (with the interpreter of the oracle's virtual environment)
"""
import json
import os

import tokenizer_check as check

RUNS = (("deepseek", 420, 2, None), ("qwen2", 600, 3, ["<a>", "the"]), ("gpt2", 100000, 0, []))
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>", "<|ref|>", "<|/ref|>", "<|det|>",
           "<|/det|>", "<|grounding|>", "<|User|>", "<|Assistant|>"]


def main():
    texts = []
    for style in check.STYLES:
        with open(os.path.join(check.FIXTURES, style, "cases.json"), encoding="utf-8") as file:
            texts += [case["text"] for case in json.load(file)["cases"]]
    runs = []
    for style, vocab, min_frequency, special in RUNS:
        special = SPECIAL if special is None else special
        tokens = [check.AddedToken(s, special=True, normalized=False) for s in special]
        model = check.train_reference(style, texts, vocab, min_frequency, tokens)["model"]
        runs.append(dict(style=style, vocab_size=vocab, min_frequency=min_frequency, special_tokens=special,
                         tokens=sorted(model["vocab"], key=model["vocab"].get),
                         merges=[" ".join(pair) for pair in check.pairs(model["merges"])]))
        print(style, len(model["vocab"]), "tokens")
    path = os.path.join(check.ROOT, "tests", "fixtures", "tokenizer_train", "golden.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(runs, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
