// A recipe: everything that one stage of training needs to know, read from a TOML file.
//
// Paths are relative to the working directory. The key of a field in TOML is its name here, tables
// are the nested structs: `optimizer.learning_rate` is learning_rate in [optimizer].
#pragma once

#include "core/dtype.h"
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
  std::int64_t pp = 1;  // pipeline stages
  std::int64_t ep = 1;  // ranks of a data-parallel group that share one set of routed experts
  bool zero = true;     // ZeRO-1: each data-parallel rank keeps its part of the optimizer's state
  std::int64_t bucket_bytes = 4 << 20;  // of gradients that are sent together
  std::int64_t chunks = 1;  // pieces of the model that each stage holds: above 1 interleaved 1F1B
  // Units (nn/model_config.h; `lectern plan` lists them): where each piece ends, in their order;
  // empty: by an estimate of their cost
  std::vector<std::int64_t> split;
  double wait_seconds = 600;  // longest wait for another rank before the job ends; 0: for ever
  std::int64_t verify_every = 100;  // steps between comparisons of the ranks' weights; 0: never
};

/// [model] What is trained and where its first weights come from. Parts named later win.
struct ModelRecipe {
  std::string config;  // config.json of the HF layout, or a folder that has one; required
  std::string init;    // "random", or a checkpoint or run folder for the whole model
  std::string
      init_encoder;  // checkpoint or run folder: sam_model, qwen2_model, projector, separator
  std::string init_decoder;   // checkpoint or run folder: embedding, decoder layers, norm, lm_head
  std::string init_sam;       // SAM-base weights in their own layout (folder or .safetensors)
  std::string init_qwen2;     // Qwen2-0.5B weights in their own layout (folder or .safetensors)
  std::string decoder_reads;  // "queries" | "visual", or "config": what `config` says
  std::int64_t queries = 0;   // rows of both query tables; 0: what `config` says
  std::optional<ResidualConfig> residual;  // "residual" and the keys that go with it, named as in
                                           // config.json; empty: what `config` says
};

/// [[data.sources]], [[data.validation_sources]] One ingredient of the mixture.
struct SourceRecipe {
  std::string name;   // of the source, unique; default: "<level or kind> <number from 1>"
  std::string kind;   // one of source_kinds(): "shards": cut from pages, "synthetic": drawn ...
  double weight = 1;  // how often it is drawn, before a curriculum says otherwise; above 0
  std::shared_ptr<const SourceSettings> settings;  // the keys of its kind (data/samples/kinds.h)
};

/// [[curriculum]] One level of it. Levels come in their order; the last is never left.
struct CurriculumRecipe {
  std::string name;                     // default: "level <number from 1>"
  std::vector<std::string> sources;     // names of data.sources; none: all
  std::vector<double> weights;          // of these; none: the sources' own
  std::vector<std::string> validation;  // names of data.validation_sources; none: all
  std::int64_t jitter_pixels = 0;       // default: data.jitter_pixels
  std::string measure = "cer";          // "cer" | "loss": figure on the level's validation sources
  double advance_below = 0;             // the next level begins once it is at most this; 0: never
  std::int64_t max_steps = 0;           // and at the latest after so many steps; 0: no limit
};

/// [data] Where samples come from and what one sample is.
struct DataRecipe {
  std::vector<SourceRecipe> sources;             // in place of `shards` and what belongs to it
  std::vector<SourceRecipe> validation_sources;  // in place of `validation`
  std::vector<std::string> shards;    // folders made by `lectern data shards`; at least one
  std::vector<double> shard_weights;  // how often each is drawn; empty: in proportion to size
  std::string validation;             // shard folder of held-out documents; "": none
  std::string tokenizer;              // tokenizer.json; required
  std::string level;                  // "page" | "line" | "word" | "mixed": what is cut from a page
  double page_share = 0, line_share = 0, word_share = 0;  // of "mixed"; need not sum to 1
  std::string prompt;                // text in front of the answer, with one <image>
  std::int64_t max_text_tokens = 0;  // longest answer, tokens; longer samples are left out
  std::int64_t pack_tokens = 0;      // pack samples into sequences up to this length; 0: one each
  bool ascii_only = false;           // leave out pieces with any other character
  std::int64_t max_characters = 0;   // longest word or line; 0: any
  std::int64_t text_height = 0;      // pixels that a cut word or line is scaled to; 0: as it is
  std::int64_t margin = 4;           // pixels of white left of a pasted word or line
  std::string text_at = "middle";    // or "top": where in the view's height words and lines lie
  std::int64_t jitter_pixels = 0;    // pasted text moves by up to this, another way each time
  std::int64_t workers = 0;          // background threads that load; 0: load in the main thread
};

/// [view] How a picture becomes views. Sizes are side lengths in pixels.
struct ViewRecipe {
  std::int64_t global_size = 1024;        // the padded view of the whole picture
  std::int64_t tile_size = 768;           // the local tiles
  bool crop = true;                       // cut 0 or 2..6 local tiles as the reference does
  std::vector<std::int64_t> resolutions;  // crop = false: steps take turns; {}: global_size
  // How the trained model reads pages, kept in its config.json (ReadingSettings).
  std::string read_by;             // "page" | "pieces": runs of words, each in a view of its own
  std::int64_t piece_width = 112;  // "pieces": as cut_width of the sources
  double piece_dpi = 100;          // "pieces": resolution of the pages that were cut
};

/// [optimizer] AdamW and its schedule.
struct OptimizerRecipe {
  double learning_rate = 0;                   // after warm-up; required
  double min_learning_rate = 0;               // where "cosine" ends, at the last step
  std::string schedule;                       // "cosine" | "constant" | "step"
  std::int64_t warmup_steps = 0;              // linear from 0 to learning_rate
  std::vector<std::int64_t> step_milestones;  // "step": from this step on ...
  std::vector<double> step_factors;           // ... the rate is learning_rate x this factor
  double beta1 = 0.9, beta2 = 0.95;           // `betas`
  double epsilon = 1e-8;
  double weight_decay = 0.1;            // decoupled, per unit of learning rate
  bool decay_norms_and_biases = false;  // true: decay every parameter, also those of one dimension
  double clip_norm = 1.0;               // global gradient norm; 0: no clipping
};

/// [batch]
struct BatchRecipe {
  std::int64_t global_size = 0;  // samples a step, over all ranks; required
  std::int64_t micro_batch = 1;  // samples a forward pass (packed sequences when pack_tokens > 0)
};

/// [moe] Both 0: exactly the reference.
struct MoeRecipe {
  double balance_loss = 0;         // factor of the auxiliary load-balance loss
  double bias_balancing_rate = 0;  // loss-free balancing: step of the router bias
};

/// [checkpoint] One is always written after the last step and when the run is interrupted.
struct CheckpointRecipe {
  std::int64_t every = 1000;  // steps; 0: only at the end
  std::int64_t keep = 2;      // newest complete ones that are kept
  bool asynchronous = true;   // written while training goes on, from a copy; false: needs no copy
};

/// [evaluation] On data.validation; also after the last step.
struct EvaluationRecipe {
  std::int64_t every = 1000;        // steps; 0: only at the end
  std::int64_t samples = 64;        // 0: no evaluation
  std::int64_t max_new_tokens = 0;  // longest reading; defaults to data.max_text_tokens
};

/// [encoder_cache] Output of a frozen encoder, kept on disk by checkpoint and page.
struct EncoderCacheRecipe {
  bool enabled = false;        // defaults to true in stage 3
  std::int64_t max_bytes = 0;  // the cache never grows beyond this
  std::string dir;             // "": <run_dir>/encoder-cache
};

/// [log]
struct LogRecipe {
  bool wall_clock = true;   // false: metrics.jsonl without seconds and bytes, so that two runs,
                            // or a resumed and an undisturbed one, write equal files
  bool tensorboard = true;  // write events.out.tfevents.* too
  std::int64_t diagnostics_every = 0;  // steps between gains of residual streams and gradient norms
                                       // of each layer; 0: never. hc, mhc in the recipe: 10
  double progress_seconds = 10;        // between progress lines when not on a terminal
};

struct Recipe {
  std::int64_t stage =
      0;  // 1: encoder by next-token prediction, 2: LM encoder + decoder, 3: decoder
  std::int64_t steps = 0;  // optimizer steps
  std::filesystem::path run_dir;
  std::int64_t seed = 0;
  std::int64_t threads = 0;  // CPU threads; 0: all cores
  std::string device;        // "cpu" | "cuda"
  std::string dtype;         // "fp32" | "bf16": of compute; weights and statistics stay fp32
  bool recompute = false;    // keep layer inputs only and recompute the rest in backward
  double memory_gib = 0;  // recompute as many blocks as this budget needs; 0: `recompute` decides
  std::int64_t recompute_streams = 0;  // hc, mhc: keep the streams every so many blocks; -1: the
                                       // paper's eq. 20; 0: keep all
  std::int64_t log_every = 1;          // steps between records of metrics.jsonl
  std::vector<std::string> freeze;     // prefixes of parameter names (hub names) that do not train;
                                       // default: see frozen_parts(stage)
  MeshRecipe mesh;
  ModelRecipe model;
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
  std::string resolved;  // TOML with every default written out: config.toml of the run folder
};

/// "fp32" -> f32, "bf16" -> bf16. Throws ConfigError for anything else.
DType compute_dtype_of(std::string_view name);

/// What the recipe says of the model in place of its config.json.
ModelSettings model_settings(const ModelRecipe& recipe);

/// The parts that a stage leaves untrained: none; "tokenizer"; "encoder", which is all before the
/// decoder (as the fixtures' stage3_decoder_only reads the paper).
std::vector<std::string> frozen_parts(std::int64_t stage);

/// Reads and checks a recipe. Throws IoError or ConfigError with one line that names file, line,
/// field, what it must be and what was found.
Recipe load_recipe(const std::filesystem::path& path,
                   const std::vector<std::string>& overrides = {});
Recipe parse_recipe(const ConfigDocument& document);

/// The recipes that a file stands for: itself, or those that its only key `stages` lists.
std::vector<std::filesystem::path> recipe_stages(const std::filesystem::path& path);

/// Throws ConfigError, saying what would fit, unless the mesh fits `ranks` processes (pp divides
/// ranks, ep divides ranks / pp) and global_size fits the data-parallel ranks.
void check_mesh(const Recipe& recipe, std::int64_t ranks);

}  // namespace lectern
