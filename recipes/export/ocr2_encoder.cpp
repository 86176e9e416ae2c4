// The part of DeepSeek-OCR 2 before its decoder, for other decoders: vision tokenizer, LM encoder,
// queries, projector, and a card that says how rows come out of it and where they go.
#include "core/error.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "recipes/export/ocr2.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;

constexpr const char* kWeightsFile = "model.safetensors";

void check_encoder(const ExportSource& source, const ExportOptions& options) {
  if (options.type || options.vision_type)
    fail<ConfigError>("export: --type and --vision-type are for --format gguf");
  check_plain_residual(source.model());
}

bool has_transformers_tables(const Ocr2Config& config) {
  return config.decoder_reads == DecoderReads::queries && config.queries_768 == 144 &&
         config.queries_1024 == 256;
}

std::string views_of_card(const Ocr2Config& config) {
  const ReadingSettings& reading = config.reading;
  std::string out = fmt::format(
      "Turn the picture as its EXIF data say, convert it to RGB, scale it to fit {0} x {0} pixels "
      "(bicubic, the aspect ratio kept) and put it in the middle of a square of grey "
      "(127, 127, 127): the global view. A value v of 0 ... 255 becomes (v / 255 - 0.5) / 0.5. A "
      "view is f32 [3, {0}, {0}], channels first.\n",
      reading.global_size);
  if (reading.crop)
    out += fmt::format(
        "\nA picture with a side over {0} pixels is also scaled to a grid of 2 to 6 tiles of "
        "{0} x {0}, that of the nearest aspect ratio, and cut: the local views, row after row.\n",
        reading.tile_size);
  return out;
}

std::string rows_of_card(const Ocr2Config& config) {
  const ReadingSettings& reading = config.reading;
  const std::string kind =
      config.decoder_reads == DecoderReads::queries ? "queries" : "visual tokens";
  std::string out = fmt::format(
      "| view | visual tokens | rows for the decoder |\n|---|---|---|\n| global, {0} x {0} | {1} | "
      "{2} |\n",
      reading.global_size, config.visual_tokens(reading.global_size),
      config.decoder_tokens(reading.global_size));
  if (reading.crop)
    out += fmt::format("| a tile, {0} x {0} | {1} | {2} |\n", reading.tile_size,
                       config.visual_tokens(reading.tile_size),
                       config.decoder_tokens(reading.tile_size));
  out += fmt::format(
      "\nThe vision tokenizer gives visual tokens of width {}; the LM encoder reads them in raster "
      "order, followed by the queries of the view's size, each token seeing all visual tokens and "
      "a "
      "query also the queries before it; its rows of the {} go through the projector "
      "(`model.projector.layers`, width {} to {}).\n",
      config.encoder.hidden_size, kind, config.encoder.hidden_size, config.decoder.hidden_size);
  return out;
}

/// How another decoder takes the rows; the shapes are those of this model.
std::string feeding_of_card(const Ocr2Config& config) {
  const std::int64_t width = config.decoder.hidden_size;
  const std::int64_t rows = config.decoder_tokens(config.reading.global_size);
  return fmt::format(
      "A picture is the rows of its tiles in their order, those of the global view, and "
      "`model.view_seperator` [{0}] as the last row: {1} rows of {0} without tiles. In the "
      "decoder's "
      "input they stand in place of as many token embeddings: put a placeholder token that many "
      "times where the picture belongs (here: begin token, placeholders, prompt, answer), embed "
      "all "
      "tokens, then overwrite the embeddings of the placeholders with the rows, in order. "
      "Placeholders are never predicted: their labels are ignored.\n\n"
      "Another decoder of width {0} takes the rows as they are. For width D replace the projector "
      "by "
      "a new one, {2} to D, and the separator by a vector of D, and train these two first with the "
      "rest frozen: the rows lie where this model's decoder expects them, not where yours does.\n",
      width, rows + 1, config.encoder.hidden_size);
}

constexpr const char* kTransformersCode = R"(
    import json, torch
    from safetensors.torch import load_file
    from transformers import DeepseekOcr2Config, DeepseekOcr2Model

    config = json.load(open("config.json"))
    width = config["projector"]["output_dim"]
    model = DeepseekOcr2Model(DeepseekOcr2Config(
        vision_config=config["vision_config"],
        text_config=dict(hidden_size=width, num_attention_heads=1, num_key_value_heads=1,
                         head_dim=width, num_hidden_layers=1, vocab_size=8, intermediate_size=8,
                         moe_intermediate_size=8, n_routed_experts=2, num_experts_per_tok=1)))
    names = {  # of this file -> of transformers
        "sam_model.patch_embed.proj.": "vision_tower.sam_encoder.patch_embed.projection.",
        "sam_model.neck.0.": "vision_tower.sam_encoder.neck.conv1.",
        "sam_model.neck.1.": "vision_tower.sam_encoder.neck.layer_norm1.",
        "sam_model.neck.2.": "vision_tower.sam_encoder.neck.conv2.",
        "sam_model.neck.3.": "vision_tower.sam_encoder.neck.layer_norm2.",
        "sam_model.net_2.": "vision_tower.sam_encoder.proj.conv1.",
        "sam_model.net_3.": "vision_tower.sam_encoder.proj.conv2.",
        "sam_model.blocks.": "vision_tower.sam_encoder.layers.",
        "sam_model.": "vision_tower.sam_encoder.",
        "qwen2_model.model.model.": "vision_tower.vision_encoder.",
        "qwen2_model.query_768.": "vision_tower.query_768_resolution.",
        "qwen2_model.query_1024.": "vision_tower.query_1024_resolution.",
        "projector.layers.": "multi_modal_projector.",
        "view_seperator": "view_separator"}
    state = {}
    for name, value in load_file("model.safetensors").items():
        old, new = next(x for x in names.items() if name.startswith("model." + x[0]))
        name = new + name[len("model." + old):]
        if ".layers." in name and "sam_encoder" in name:
            name = name.replace(".norm1.", ".layer_norm1.").replace(".norm2.", ".layer_norm2.")
        state[name] = value.float()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(x.startswith("language_model.") for x in missing)

    def rows(global_view, tiles=None):
        """[3, S, S] and [n, 3, s, s] -> [rows, width]; the views as above."""
        with torch.no_grad():
            parts = []
            for views in (tiles, global_view[None]):
                if views is not None:
                    seen = model.vision_tower(views).last_hidden_state
                    parts.append(model.multi_modal_projector(seen).flatten(0, 1))
            return torch.cat(parts + [model.view_separator.reshape(1, -1)])
)";

std::string card(const ExportSource& source, DType dtype) {
  const Ocr2Config& config = ocr2::config_of(source);
  std::string out = fmt::format(
      "# Encoder of a DeepSeek-OCR 2\n\nWhat stands before the decoder of a model that lectern "
      "trained or converted: vision tokenizer (SAM, {} blocks of {}), LM encoder ({} layers of "
      "{}), "
      "queries, projector. No decoder, no tokenizer.\n\n| file | holds |\n|---|---|\n"
      "| `{}` | the tensors under their published names, {} |\n"
      "| `config.json` | `vision_config` and `lectern` of the whole model's configuration, widths "
      "of the projector |\n| `processor_config.json` | how transformers prepares pictures |\n\n",
      config.sam.num_hidden_layers, config.sam.hidden_size, config.encoder.num_hidden_layers,
      config.encoder.hidden_size, kWeightsFile,
      dtype == DType::bf16 ? "matrices bf16, all others f32" : "f32");
  out += "## From a picture to views\n" + views_of_card(config);
  out += "\n## From views to rows\n" + rows_of_card(config);
  out += "\n## From rows into a decoder\n" + feeding_of_card(config);
  if (has_transformers_tables(config))
    out += std::string("\n## With transformers\n") +
           "Its classes compute the rows; the decoder that they want beside is a stub here.\n" +
           kTransformersCode;
  else
    out += "\ntransformers has query tables of 144 and 256 rows fixed and cannot hold these.\n";
  return out;
}

json encoder_config(const Ocr2Config& config, DType dtype) {
  const json whole = to_hf_json(config);
  return {{"model_type", "deepseek_ocr2_vision"},
          {"dtype", dtype == DType::bf16 ? "bfloat16" : "float32"},
          {"vision_config", whole["vision_config"]},
          {"projector",
           {{"input_dim", config.encoder.hidden_size},
            {"output_dim", config.decoder.hidden_size},
            {"projector_type", "linear"}}},
          {"lectern", whole["lectern"]}};
}

std::int64_t write_encoder(const ExportSource& source, const std::filesystem::path& folder,
                           const ExportOptions& options) {
  const Ocr2Config& config = ocr2::config_of(source);
  const auto names =
      write_weights(source, folder / kWeightsFile, options.dtype, config.parts().encoder);
  write_json(folder / "config.json", encoder_config(config, options.dtype));
  write_json(folder / "processor_config.json", ocr2::hf_processor(config));
  write_file(folder / "README.md", card(source, options.dtype));
  return std::ssize(names);
}

void verify_encoder(const ExportSource& source, const std::filesystem::path& folder,
                    const ExportOptions& options) {
  const SafetensorsFile file = SafetensorsFile::open(folder / kWeightsFile);
  const auto names = file.names();
  if (names.empty()) fail<IoError>(fmt::format("{}: has no tensors", file.path().string()));
  for (const std::string& name : names) {
    check_written(source, name, file.get(name), options.dtype, file.path());
    file.release(name);
  }
}

}  // namespace

ExportLayout ocr2::encoder_layout() {
  return {"ocr2", "encoder", check_encoder, write_encoder, verify_encoder};
}

}  // namespace lectern
