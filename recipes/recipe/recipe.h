// A recipe: everything that one stage of training needs to know, read from a TOML file.
//
// Paths are relative to the working directory; a model configuration or first weights below
// recipes/ that are not there are those that come with lectern (find_shipped). The key of a field
// in TOML is its name here, tables are the nested structs: `optimizer.learning_rate` is
// learning_rate in [optimizer].
#pragma once

#include "core/dtype.h"
#include "core/io/record.h"
#include "data/samples/kinds.h"
#include "nn/blocks/residual_config.h"
#include "nn/model_config.h"
#include "recipes/config/toml_config.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// [mesh] Ranks: pp x dp of them, and ep divides dp.
struct MeshRecipe {
  std::int64_t pp = 1, ep = 1;
  bool zero = true;
  std::int64_t bucket_bytes = 4 << 20;
  std::int64_t chunks = 1;
  std::vector<std::int64_t> split;
  double wait_seconds = 600;
  std::int64_t verify_every = 100;
};

/// [model] What is trained and where its first weights come from. Parts named later win.
struct ModelRecipe {
  std::string config;
  std::string init = "random";
  std::string init_encoder, init_decoder, init_sam, init_qwen2;
  std::string adapter;  // that training goes on with
  std::string decoder_reads = "config";
  std::int64_t queries = 0;
  std::optional<ResidualConfig> residual;  // "residual" and the keys that go with it, named as in
                                           // config.json; empty: what `config` says
};

/// [[data.sources]], [[data.validation_sources]] One ingredient of the mixture.
struct SourceRecipe {
  std::string name;   // of the source, unique; default: "<level or kind> <number from 1>"
  std::string kind;   // one of source_kinds()
  double weight = 1;  // how often it is drawn, before a curriculum says otherwise; above 0
  std::shared_ptr<const SourceSettings> settings;  // the keys of its kind (data/samples/kinds.h)
};

/// [[curriculum]] One level of it. Levels come in their order; the last is never left.
struct CurriculumRecipe {
  std::string name;
  std::vector<std::string> sources;
  std::vector<double> weights;
  std::vector<std::string> validation;
  std::int64_t jitter_pixels = 0;
  std::string measure = "cer";
  double advance_below = 0;
  std::int64_t max_steps = 0;
};

/// [data] Where samples come from and what one sample is.
struct DataRecipe {
  std::vector<SourceRecipe> sources;             // in place of `shards` and what belongs to it
  std::vector<SourceRecipe> validation_sources;  // in place of `validation`
  std::vector<std::string> shards;
  std::vector<double> shard_weights;
  std::string validation;
  std::string tokenizer;
  std::string level = "page";
  double page_share = 1, line_share = 0, word_share = 0;
  std::string prompt = "<image>\nFree OCR.";
  std::int64_t max_text_tokens = 4096;
  std::int64_t pack_tokens = 0;
  bool ascii_only = false;
  std::int64_t max_characters = 0;
  std::int64_t text_height = 0;
  std::int64_t margin = 4;
  std::string text_at = "middle";
  std::int64_t jitter_pixels = 0;
  std::int64_t workers = 1;
};

/// [view] How a picture becomes views. Sizes are side lengths in pixels.
struct ViewRecipe {
  std::int64_t global_size = 1024, tile_size = 768;
  bool crop = true;
  std::vector<std::int64_t> resolutions;
  // How the trained model reads pages, kept in its config.json (ReadingSettings).
  std::string read_by = "page";
  std::int64_t piece_width = 112;
  double piece_dpi = 100;
};

/// [lora] A low-rank adapter trains in place of the model.
struct LoraRecipe {
  std::int64_t rank = 16;
  double alpha = 32;  // defaults to 2 x rank
  bool rslora = false;
  double dropout = 0;
  std::vector<std::string> targets = {"decoder.attention", "decoder.mlp"};
};

/// [optimizer] AdamW and its schedule.
struct OptimizerRecipe {
  double learning_rate = 0;
  double min_learning_rate = 0;
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 0;
  std::vector<std::int64_t> step_milestones;
  std::vector<double> step_factors;
  double beta1 = 0.9, beta2 = 0.95;  // `betas`
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  bool decay_norms_and_biases = false;
  double clip_norm = 1.0;
};

/// [batch]
struct BatchRecipe {
  std::int64_t global_size = 0, micro_batch = 1;
};

/// [moe] Both 0: exactly the reference.
struct MoeRecipe {
  double balance_loss = 0, bias_balancing_rate = 0;
};

/// [checkpoint] One is always written after the last step and when the run is interrupted.
struct CheckpointRecipe {
  std::int64_t every = 1000, keep = 2;
  bool asynchronous = true;
};

/// [evaluation] On data.validation; also after the last step.
struct EvaluationRecipe {
  std::int64_t every = 1000, samples = 64;
  std::int64_t max_new_tokens = 0;  // defaults to data.max_text_tokens
};

/// [encoder_cache] Output of a frozen encoder, kept on disk by checkpoint and page.
struct EncoderCacheRecipe {
  bool enabled = false;  // defaults to true in stage 3
  std::int64_t max_bytes = std::int64_t{16} << 30;
  std::string dir = {};
};

/// [log]
struct LogRecipe {
  bool wall_clock = true, tensorboard = true;
  std::int64_t diagnostics_every = 0;  // hc, mhc in the recipe: 10
  double progress_seconds = 10;
};

struct Recipe {
  std::int64_t stage = 0;
  std::int64_t steps = 0;
  std::filesystem::path run_dir;
  std::int64_t seed = 0;
  std::int64_t threads = 0;
  std::string device = "cpu";
  std::string dtype = "fp32";
  bool recompute = false;
  double memory_gib = 0;
  std::int64_t recompute_streams = 0;
  std::int64_t log_every = 1;
  std::vector<std::string> freeze;  // default: see frozen_parts(stage)
  MeshRecipe mesh;
  ModelRecipe model;
  std::optional<LoraRecipe> lora;  // without one model.adapter says what trains, or the model does
  DataRecipe data;
  ViewRecipe view;
  OptimizerRecipe optimizer;
  BatchRecipe batch;
  MoeRecipe moe;
  CheckpointRecipe checkpoint;
  EvaluationRecipe evaluation;
  EncoderCacheRecipe encoder_cache;
  LogRecipe log;
  std::vector<CurriculumRecipe> curriculum;  // empty: one level with everything

  /// Whether an adapter trains, and the model stays as it is.
  bool adapts() const { return lora.has_value() || !model.adapter.empty(); }

  std::string resolved;  // TOML with every default written out: config.toml of the run folder
};

// The fields of each table (core/io/record.h), without the tables below it. `data` and the number
// of an item from 0 give the defaults of items. `has_sources`: there are data.sources.
void describe(Recipe& r, FieldVisitor& f);
void describe(MeshRecipe& r, FieldVisitor& f);
void describe(ModelRecipe& r, FieldVisitor& f);
void describe(LoraRecipe& r, FieldVisitor& f);
void describe(DataRecipe& r, FieldVisitor& f, bool has_sources);
/// `name` stays empty where none is given.
void describe(SourceRecipe& r, FieldVisitor& f, const DataRecipe& data);
void describe(CurriculumRecipe& r, FieldVisitor& f, const DataRecipe& data, std::size_t index);
void describe(ViewRecipe& r, FieldVisitor& f);
void describe(OptimizerRecipe& r, FieldVisitor& f);
void describe(BatchRecipe& r, FieldVisitor& f);
void describe(MoeRecipe& r, FieldVisitor& f);
void describe(CheckpointRecipe& r, FieldVisitor& f);
void describe(EvaluationRecipe& r, FieldVisitor& f);
void describe(EncoderCacheRecipe& r, FieldVisitor& f);
void describe(LogRecipe& r, FieldVisitor& f);

/// "fp32" -> f32, "bf16" -> bf16. Throws ConfigError for anything else.
DType compute_dtype_of(std::string_view name);

/// What the recipe says of the model in place of its config.json.
ModelSettings model_settings(const ModelRecipe& recipe);

/// The parts that a stage leaves untrained: none; "tokenizer"; "encoder", which is all before the
/// decoder (as the fixtures' stage3_decoder_only reads the paper).
std::vector<std::string> frozen_parts(std::int64_t stage);

/// Reads and checks a recipe, a file or a name (find_recipe). Throws IoError or ConfigError with
/// one line that names file, line, field, what it must be and what was found.
Recipe load_recipe(const std::filesystem::path& path,
                   const std::vector<std::string>& overrides = {});
Recipe parse_recipe(const ConfigDocument& document);

/// The recipes that a file or name stands for: itself, or those that its only key `stages` lists.
std::vector<std::filesystem::path> recipe_stages(const std::filesystem::path& path);

/// Throws ConfigError, saying what would fit, unless the mesh fits `ranks` processes (pp divides
/// ranks, ep divides ranks / pp) and global_size fits the data-parallel ranks.
void check_mesh(const Recipe& recipe, std::int64_t ranks);

}  // namespace lectern
