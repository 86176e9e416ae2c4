#!/usr/bin/env python3
"""Compares lectern's tokenizer with the `tokenizers` library on megabytes of mixed text.

usage: tokenizer_check.py --lectern BINARY [--megabytes 5] [--vocab 4000] [--seed 1]

1. ids and decoded texts with the fixture tokenizers, text built from files of this system (licences,
   documentation, Python sources) mixed at random with the texts of the fixtures (Chinese, Japanese,
   Arabic, emoji, added tokens, control characters) and with single characters of all of Unicode;
2. tokenizers trained by both on the same text, in every style: equal vocabularies and merges, then
   equal ids with lectern's own file.
Prints one line a comparison; exits 1 when one differs, 77 where `tokenizers` is not installed (run
it with the interpreter of the oracle's virtual environment).
"""
import argparse
import glob
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
try:
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError:
    print("skipped: the Python package tokenizers is not installed")
    sys.exit(77)

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FIXTURES = os.path.join(ROOT, "tests", "fixtures", "tokenizer")
STYLES = ("gpt2", "qwen2", "deepseek")
failures = 0


def report(passed, what):
    global failures
    failures += not passed
    print("ok  " if passed else "FAIL", what, flush=True)


def system_texts():
    patterns = ["/usr/share/common-licenses/*", "/usr/share/doc/*/copyright", "/usr/share/doc/*/README*",
                "/usr/share/doc/*/changelog*.gz", "/usr/lib/python3*/*.py", "/usr/share/perl/*/*.pm",
                "/usr/share/i18n/locales/*", "/usr/share/vim/vim*/tutor/tutor*"]
    paths = sorted(p for pattern in patterns for p in glob.glob(pattern) if os.path.isfile(p))
    random.shuffle(paths)
    for path in paths:
        try:
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
                yield file.read(60000).decode("utf-8", "ignore")
        except OSError:
            continue


def random_characters(count):
    # Unassigned characters are left out: each library has the Unicode version it was built with.
    out = []
    while len(out) < count:
        point = random.choice((random.randrange(0x250), random.randrange(0x3000),
                               random.randrange(0x3000, 0xD7FF), random.randrange(0xF900, 0x20000)))
        character = chr(point)
        if unicodedata.category(character) not in ("Cs", "Cn", "Co"):
            out.append(character)
    return "".join(out)


def build_documents(size):
    cases = json.load(open(os.path.join(FIXTURES, "deepseek", "cases.json")))["cases"]
    snippets = [case["text"] for case in cases]
    documents, total = [], 0
    files = system_texts()
    while total < size:
        text = next(files, None)
        if text is None:
            files = system_texts()
            continue
        parts, at = [], 0
        while at < len(text):
            step = random.randrange(1, 4000)
            parts.append(text[at:at + step])
            at += step
            parts.append(random.choice(("", "", " ", "\n", random.choice(snippets) * random.randrange(1, 4),
                                        random_characters(random.randrange(1, 30)))))
        documents.append("".join(parts))
        total += len(documents[-1].encode())
    return documents, total


def lectern(binary, *arguments, stdin=""):
    begun = time.time()
    done = subprocess.run([binary, "tokenizer", *arguments], input=stdin.encode(), capture_output=True)
    if done.returncode != 0:
        sys.exit(f"lectern tokenizer {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode(), time.time() - begun


def compare_codes(binary, name, path, documents, size):
    reference = Tokenizer.from_file(path)
    begun = time.time()
    want = [reference.encode(text, add_special_tokens=False).ids for text in documents]
    reference_seconds = time.time() - begun
    lines = "".join(json.dumps(text) + "\n" for text in documents)
    _, start_seconds = lectern(binary, "encode", "--tokenizer", path, "--no-special")
    out, seconds = lectern(binary, "encode", "--tokenizer", path, "--no-special", stdin=lines)
    got = [json.loads(line) for line in out.splitlines()]
    differing = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
    report(len(got) == len(want) and not differing,
           f"{name}: ids of {len(documents)} texts, {size / 1e6:.1f} MB, {sum(map(len, want))} ids, "
           f"{len(differing)} differ; {size / 1e6 / max(seconds - start_seconds, 1e-3):.1f} MB/s with JSON "
           f"in and out (tokenizers: {size / 1e6 / reference_seconds:.1f} MB/s)")
    for i in differing[:3]:
        k = next(k for k in range(len(want[i])) if got[i][k:k + 1] != want[i][k:k + 1])
        print(f"     text {i}, id {k}: got {[reference.id_to_token(t) for t in got[i][k:k + 6]]}, "
              f"want {[reference.id_to_token(t) for t in want[i][k:k + 6]]}")
    # Cut at random, so that decoding begins and ends inside characters; some ids have no token.
    cuts = []
    for ids in want:
        for _ in range(20):
            begin = random.randrange(len(ids))
            cuts.append(ids[begin:begin + random.randrange(1, 12)])
            cuts.append([random.randrange(reference.get_vocab_size() + 5) for _ in range(8)])
    lines = "".join(json.dumps(cut) + "\n" for cut in cuts)
    for skip in (False, True):
        out, _ = lectern(binary, "decode", "--tokenizer", path, *(["--skip-special"] if skip else []), stdin=lines)
        # U+0085 and its like are line ends to splitlines(), but not here.
        got = [json.loads(line) for line in out.split("\n")[:-1]]
        bad = [c for c, g in zip(cuts, got) if g != reference.decode(c, skip_special_tokens=skip)]
        report(len(got) == len(cuts) and not bad, f"{name}: {len(cuts)} decoded cuts, skip_special {skip}, {len(bad)} differ")


def train_reference(style, texts, vocab, min_frequency, special):
    fixture = Tokenizer.from_file(os.path.join(FIXTURES, style, "tokenizer.json"))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = fixture.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if style == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=min_frequency, show_progress=False, special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


def pairs(merges):
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]


def compare_training(binary, style, documents, vocab, folder):
    files = []
    for i in range(3):
        files.append(os.path.join(folder, f"text{i}"))
        # newline="" keeps carriage returns as they are
        with open(files[-1], "w", encoding="utf-8", newline="") as file:
            file.write("".join(documents[i::3]))
    texts = [open(f, encoding="utf-8", newline="").read() for f in files]
    path = os.path.join(folder, f"{style}.json")
    _, seconds = lectern(binary, "train", "--text", *files, "--vocab", str(vocab), "--out", path, "--style", style,
                         "--min-frequency", "2")
    got = json.load(open(path, encoding="utf-8"))
    special = [token["content"] for token in got["added_tokens"]]
    begun = time.time()
    want = train_reference(style, texts, vocab, 2, [AddedToken(s, special=True, normalized=False) for s in special])
    reference_seconds = time.time() - begun
    same_vocab = got["model"]["vocab"] == want["model"]["vocab"]
    a, b = pairs(got["model"]["merges"]), pairs(want["model"]["merges"])
    others = {k: v for k, v in got.items() if k != "model"} == {k: v for k, v in want.items() if k != "model"}
    report(same_vocab and a == b and others,
           f"{style}: trained {vocab} tokens on {sum(len(t.encode()) for t in texts) / 1e6:.1f} MB in {seconds:.1f} s "
           f"(tokenizers: {reference_seconds:.1f} s); vocabulary equal: {same_vocab}, {len(a)} merges equal: {a == b}, "
           f"all else equal: {others}")
    if a != b:
        k = next((k for k in range(min(len(a), len(b))) if a[k] != b[k]), min(len(a), len(b)))
        print(f"     merge {k}: got {a[k:k + 3]}, want {b[k:k + 3]}")
    return path


def setting_variants(base):
    """(name, change of a tokenizer) for the settings that the fixtures do not use."""
    byte_level = lambda prefix=False, regex=False: pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    split = lambda pattern, behavior, invert=False: pre_tokenizers.Split(pattern, behavior, invert)

    def cut(*members):
        def change(tokenizer):
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(members))
        return change

    behaviors = ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous")
    patterns = ("-", " ", Regex(r"x*"), Regex(r"\s"), Regex(r"[aeiou]+"), Regex(r"(?<![a-z])\w+"))
    for behavior in behaviors:
        for pattern in patterns:
            for invert in (False, True):
                yield f"Split {pattern} {behavior} {invert}", cut(split(pattern, behavior, invert), byte_level())
    for pattern in (r"\S+|\s", r"\h+", r"\p{Han}+", r"\p{Hiragana}|\p{Katakana}", r"^[a-z]+|[a-z]+$", r"(?i:[a-k]+)|\d",
                    r"[^\s\p{L}]+|\p{Lu}?\p{Ll}+", r"\w+|[^\w\s]+", r"\x{4e00}+|\p{^L}", r"[\s\p{P}]{1,2}(?=\w)",
                    r"\P{L}+", r"(?:a|ab)++c?", r"\A\s*|\z", r".\b", r"\w\B.", r"\b\p{Lu}?"):
        yield f"Regex {pattern}", cut(split(Regex(pattern), "isolated"), byte_level())
    yield "Digits individual", cut(pre_tokenizers.Digits(True), byte_level(False, True))
    yield "Digits runs", cut(pre_tokenizers.Digits(False), byte_level(False, True))
    yield "prefix space", cut(byte_level(True, True))
    yield "prefix space of each piece", cut(split("-", "isolated"), byte_level(True))
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        def change(tokenizer, form=form):
            tokenizer.normalizer = normalizers.Sequence([getattr(normalizers, form)()])
        yield form, change
    for flags in range(32):
        def change(tokenizer, flags=flags):
            tokenizer.normalizer = normalizers.NFC()
            options = dict(zip(("single_word", "lstrip", "rstrip", "normalized", "special"),
                               (bool(flags >> bit & 1) for bit in range(5))))
            tokenizer.add_tokens([AddedToken(t, **options) for t in ("<tag>", "<tag>>", "e\u0301t", "the", "\u00e9", "2")])
        yield f"added token flags {flags:05b}", change

    def template(tokenizer):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<image> $A <|User|> <|det|>", pair=None,
            special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<image>", "<|User|>", "<|det|>")])
    yield "template", template


def compare_settings(binary, folder):
    base = json.load(open(os.path.join(FIXTURES, "gpt2", "tokenizer.json"), encoding="utf-8"))
    cases = json.load(open(os.path.join(FIXTURES, "gpt2", "cases.json"), encoding="utf-8"))["cases"]
    texts = [case["text"] for case in cases]
    pools = ["abcxXYZ", "  \n\t-", "012", "\u4e00\u4e8c\u9875", "'.,!-_<>", "\u00e9\u0301e\u0323", "\u304b\u30ab\u3001", "the", "\u00a0\u3000\u0085\u180e\u200b"]
    words = ["<tag>", "<tag>>", " <tag> ", "e\u0301t", "\u00e9t", "the", "other", "xx--xx", "\u2028", "\r\n", "\ufb01", "deadbeef"]
    for _ in range(400):
        texts.append("".join(random.choice(words) if random.random() < 0.3 else random.choice(random.choice(pools))
                             for _ in range(random.randrange(1, 30))))
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    count = wrong = 0
    path = os.path.join(folder, "setting.json")
    for ignore_merges in (False, True):
        for name, change in setting_variants(base):
            base["model"]["ignore_merges"] = ignore_merges
            reference = Tokenizer.from_str(json.dumps(base))
            change(reference)
            reference.save(path)
            reference = Tokenizer.from_file(path)
            for special in (False, True):
                want = [reference.encode(text, add_special_tokens=special).ids for text in texts]
                out, _ = lectern(binary, "encode", "--tokenizer", path, *([] if special else ["--no-special"]), stdin=lines)
                got = [json.loads(line) for line in out.splitlines()]
                bad = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
                count += 1
                if bad or len(got) != len(want):
                    wrong += 1
                    i = bad[0]
                    report(False, f"{name}, ignore_merges {ignore_merges}: {len(bad)} texts differ; {texts[i]!r}: "
                                  f"got {[reference.id_to_token(t) for t in got[i]]}, want {[reference.id_to_token(t) for t in want[i]]}")
                    break
    report(wrong == 0, f"{count} other settings, {len(texts)} texts each, {wrong} differ")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lectern", required=True)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--vocab", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    documents, size = build_documents(arguments.megabytes * 1e6)
    for style in STYLES:
        compare_codes(arguments.lectern, style, os.path.join(FIXTURES, style, "tokenizer.json"), documents, size)
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            path = compare_training(arguments.lectern, style, documents, arguments.vocab, folder)
            compare_codes(arguments.lectern, f"{style}, trained by lectern", path, documents, size)
        compare_settings(arguments.lectern, folder)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
