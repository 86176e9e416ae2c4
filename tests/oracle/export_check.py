#!/usr/bin/env python3
"""Loads an exported model with transformers, strictly, and compares it with lectern.

usage: export_check.py --export FOLDER --case FILE [--tolerance 1e-4]
       export_check.py --lectern BINARY --case-maker BINARY

The first form checks one export against a case file (`oracle.export_case --checkpoint MODEL --out
FILE`, run on the checkpoint that was exported). The second makes a small random model, exports it in
both formats and checks each. Compared: the names and shapes of the file with those that transformers
would write, no missing or unexpected keys, tokenizer ids, ids of the prompt (begin token and all), logits and loss within the tolerance
(times the largest value, at least 1), greedy tokens equal.

transformers has no class for the original layout (`deepseek_vl_v2`); its configuration is turned
into a DeepseekOcr2Config here, the weights are loaded as they are.
Prints one line a comparison; exits 1 when one fails, 77 where transformers is not installed.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from PIL import Image
    from safetensors import safe_open
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import DeepseekOcr2Config, DeepseekOcr2ForConditionalGeneration
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
failures = 0


def report(passed, what):
    global failures
    failures += not passed
    print("ok  " if passed else "FAIL", what, flush=True)


def config_of_original(root):
    """What the original config.json says, with the values that its readers have built in."""
    text = root["language_config"]
    sam = root["vision_config"]["width"]["sam_vit_b"]
    encoder = root["vision_config"]["width"]["qwen2-0-5b"]
    layers = text["num_hidden_layers"]
    dense = text["first_k_dense_replace"]
    same = ("vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
            "n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size n_group topk_group topk_method "
            "routed_scaling_factor max_position_embeddings rms_norm_eps bos_token_id eos_token_id").split()
    return DeepseekOcr2Config(
        image_token_id=root.get("image_token_id", 128815),
        text_config=dict(
            {key: text[key] for key in same},
            pad_token_id=None,
            mlp_layer_types=["dense"] * dense + ["sparse"] * (layers - dense),
            rope_parameters={"rope_type": "default", "rope_theta": text["rope_theta"]},
            tie_word_embeddings=False),
        vision_config=dict(
            sam_config=dict(
                hidden_size=sam["width"], num_hidden_layers=sam["layers"], num_attention_heads=sam["heads"],
                global_attn_indexes=sam["global_attn_indexes"], downsample_channels=sam["downsample_channels"],
                output_channels=sam.get("output_channels", 256), patch_size=sam.get("patch_size", 16),
                window_size=sam.get("window_size", 14), image_size=sam.get("image_size", 1024),
                mlp_dim=sam.get("mlp_dim", 4 * sam["width"])),
            encoder_config=dict(
                hidden_size=encoder["dim"], intermediate_size=encoder.get("intermediate_size", 4864),
                num_hidden_layers=encoder.get("layers", 24), num_attention_heads=encoder.get("heads", 14),
                num_key_value_heads=encoder.get("kv_heads", 2),
                rope_parameters={"rope_type": "default", "rope_theta": encoder.get("rope_theta", 1e6)})),
        tie_word_embeddings=False)


def stored_shapes(folder):
    shapes = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name in shapes:
                    report(False, f"{name} is stored twice")
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def load_strictly(folder):
    root = json.load(open(os.path.join(folder, "config.json"), encoding="utf-8"))
    original = root["model_type"] == "deepseek_vl_v2"
    config = config_of_original(root) if original else DeepseekOcr2Config.from_pretrained(folder)
    model, info = DeepseekOcr2ForConditionalGeneration.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    for kind, names in info.items():
        report(not names, f"{kind}: {len(names)} {sorted(map(str, names))[:4] if names else ''}")
    # A model remembers the names that it was loaded from; without that memory it writes the published ones.
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
    with tempfile.TemporaryDirectory() as written:
        model.save_pretrained(written)
        want, have = stored_shapes(written), stored_shapes(folder)
    odd = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    report(not odd, f"{len(have)} names and shapes as transformers writes them {odd[:4] if odd else ''}")
    model.eval()
    # The default grouped product refuses small experts on the CPU.
    model.config._experts_implementation = model.config.text_config._experts_implementation = "eager"
    return model, root


def check_tokenizer(folder, root):
    text = "The quick brown fox, 3.14 — naïve façade\n日本語 \U0001f600"
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    report(fast.encode(text, add_special_tokens=False) == plain.encode(text, add_special_tokens=False).ids,
           "AutoTokenizer gives the ids of tokenizer.json")
    config = root.get("text_config") or root["language_config"]
    report((fast.bos_token_id, fast.eos_token_id) == (config["bos_token_id"], config["eos_token_id"]),
           f"begin and end tokens {fast.bos_token_id}, {fast.eos_token_id}")


def check_prompt(folder, root, case):
    """Who asks an export the way transformers' users do gives it the prompt that it was trained with."""
    prompt, image = root["lectern"]["prompt"], root["image_token_id"]
    row = case["in.input_ids"][0, :int(case["greedy_prompt_len"])].tolist()

    def collapsed(ids):  # a picture's tokens as the one placeholder that stands for them
        return [token for i, token in enumerate(ids) if i == 0 or token != image or ids[i - 1] != image]

    want = collapsed(row)
    got = transformers.AutoTokenizer.from_pretrained(folder)(prompt).input_ids
    report(got == want, f"AutoTokenizer gives the prompt of lectern {want}" + ("" if got == want else f": {got}"))
    if root["model_type"] != "deepseek_ocr2":
        return
    processor = transformers.AutoProcessor.from_pretrained(folder)
    size = processor.image_processor.tile_size
    picture = Image.new("RGB", (size // 2, size // 2), (200, 30, 30))
    got = collapsed(processor(images=picture, text=prompt).input_ids[0])
    report(got == want, "AutoProcessor gives the prompt of lectern" + ("" if got == want else f": {got}"))


def compare(model, case, tolerance):
    inputs = {name[3:]: value.long() if not value.is_floating_point() else value
              for name, value in case.items() if name.startswith("in.")}
    tiles = inputs["num_local_patches"] = inputs["num_local_patches"].tolist()
    with torch.no_grad():
        out = model(**inputs, use_cache=False)
    rows = case["logit_rows"].long()
    for what, got, want in (("logits", out.logits[rows[:, 0], rows[:, 1]], case["logits_at_rows"]),
                            ("loss", out.loss.reshape(1), case["loss"])):
        difference = float((got.double() - want.double()).abs().max())
        bound = tolerance * max(1.0, float(want.abs().max()))
        report(got.shape == want.shape and difference <= bound,
               f"{what} {tuple(want.shape)}: largest difference {difference:.2e}, bound {bound:.1e}")

    want = case["greedy_tokens"].tolist()
    length = int(case["greedy_prompt_len"])
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 2
    first = dict(pixel_values=inputs["pixel_values"][:1], num_local_patches=tiles[:1])
    if tiles[0]:
        first["pixel_values_local"] = inputs["pixel_values_local"][:tiles[0]]
    with torch.no_grad():
        got = model.generate(input_ids=inputs["input_ids"][:1, :length], attention_mask=inputs["attention_mask"][:1, :length],
                             do_sample=False, max_new_tokens=len(want), **first)[0, length:].tolist()
    report(got == want, f"{len(want)} greedy tokens, {len(set(want))} different ones" + ("" if got == want else f": {got}, want {want}"))


def check_export(folder, case_file, tolerance):
    print(folder)
    model, root = load_strictly(folder)
    check_tokenizer(folder, root)
    case = load_file(case_file)
    check_prompt(folder, root, case)
    compare(model, case, tolerance)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export")
    parser.add_argument("--case")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--lectern")
    parser.add_argument("--case-maker")
    arguments = parser.parse_args()
    if arguments.export and arguments.case:
        check_export(arguments.export, arguments.case, arguments.tolerance)
    elif arguments.lectern and arguments.case_maker:
        with tempfile.TemporaryDirectory() as folder:
            model, case = os.path.join(folder, "model"), os.path.join(folder, "case.safetensors")
            subprocess.run([arguments.case_maker, "--tiny", model, "--checkpoint", model, "--out", case], check=True)
            for layout in ("hf", "original"):
                target = os.path.join(folder, layout)
                subprocess.run([arguments.lectern, "export", "--checkpoint", model, "--format", layout, "--out", target], check=True)
                check_export(target, case, arguments.tolerance)
    else:
        parser.error("needs --export and --case, or --lectern and --case-maker")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
