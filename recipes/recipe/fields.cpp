// What a recipe can say: every key once, with its range, its default (the member's initial value)
// and its sentence. docs/recipes.md has the same as tables, which a test holds equal.
#include "recipes/recipe/recipe.h"

#include <fmt/format.h>

#include <utility>

namespace lectern {
namespace {

constexpr std::int64_t kMaxSteps = 1'000'000'000;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 20;

void path(FieldVisitor& f, std::string_view key, std::filesystem::path& value,
          const FieldNote& note) {
  std::string text = value.string();
  f.text(key, text, note);
  value = text;
}

}  // namespace

void describe(Recipe& r, FieldVisitor& f) {
  f.integer(
      "stage", r.stage, within(1, 3),
      {.meaning = "sets the defaults of `freeze` and `encoder_cache.enabled`", .required = true});
  f.integer("steps", r.steps, within(1, kMaxSteps),
            {.meaning = "optimizer steps in all", .required = true});
  path(f, "run_dir", r.run_dir,
       {.unit = "path", .meaning = "run folder; a new one unless `--resume`", .required = true});
  f.integer("seed", r.seed, at_least(0),
            {.meaning = "of initialisation, order of samples, jitter"});
  f.integer("threads", r.threads, within(0, 4096),
            {"CPU threads", "of a rank", "0: all cores, shared out among the ranks of a host"});
  f.choice(
      "device", r.device, {"cpu", "cuda"},
      {.meaning = "where the model lives and trains; `\"cuda\"` needs a build with nvcc and an "
                  "NVIDIA GPU of compute capability 8.0 or newer (`lectern info` says). No "
                  "run on a GPU has been measured yet"});
  f.choice("dtype", r.dtype, {"fp32", "bf16"},
           {.meaning = "of compute: bf16 rounds what goes into matrix products and adds up in "
                       "fp32; weights, optimizer state, gradients and all else stay fp32. Fast "
                       "with AVX-512 BF16, elsewhere as fast as fp32 (`lectern info` says which)"});
  f.boolean("recompute", r.recompute,
            {.meaning = "keep only the inputs of blocks and compute the rest again in backward"});
  f.number("memory_gib", r.memory_gib, between(0, 1e6),
           {.meaning = "GiB; largest allowed peak of tensors, weights and optimizer state "
                       "included: only as many blocks recompute as that needs "
                       "([below](#memory_gib))",
            .otherwise = "0: `recompute` decides"});
  if (r.recompute || r.memory_gib > 0) r.recompute_streams = -1;
  f.integer("recompute_streams", r.recompute_streams, within(-1, 4096),
            {"blocks",
             "hc, mhc: keep the streams every so many blocks and rebuild the rest; −1: the paper's "
             "rule, 0: keep all ([mhc.md](mhc.md))",
             "0; −1 with `recompute` or `memory_gib`"});
  f.integer("log_every", r.log_every, within(1, kMaxSteps),
            {"steps", "between records of `metrics.jsonl`"});
  r.freeze = frozen_parts(r.stage);
  f.texts("freeze", r.freeze,
          {"parts of the model, or prefixes of parameter names where `*` is one step of the path",
           "what does not train: `\"tokenizer\"`, `\"encoder\"`, `\"decoder\"`, `\"head\"`, "
           "`\"router\"`, `\"experts\"`, or names (`model.layers.*.self_attn.`); with `[lora]` or "
           "`model.adapter` all of the model is",
           "by stage: none; `\"tokenizer\"`; `\"encoder\"`"});
}

void describe(MeshRecipe& r, FieldVisitor& f) {
  f.integer("pp", r.pp, within(1, 1 << 20), {"ranks", "pipeline stages; divides the ranks"});
  f.integer("ep", r.ep, within(1, 1 << 20),
            {"ranks",
             "neighbouring data-parallel ranks that share one set of routed experts; "
             "divides ranks / `pp` and the experts"});
  f.boolean("zero", r.zero,
            {.meaning = "ZeRO-1: each data-parallel rank keeps only its part of AdamW's moments; "
                        "one rank keeps all"});
  f.integer("bucket_bytes", r.bucket_bytes, within(4, 1 << 30),
            {"bytes", "gradients that are sent together, while backward goes on"});
  f.integer("chunks", r.chunks, within(1, 1 << 10),
            {.meaning = "pieces of the model that each stage holds; above 1: interleaved 1F1B"});
  f.integers("split", r.split, within(1, 1 << 20),
             {"units", "where each of the `pp` × `chunks` pieces ends; `lectern plan` proposes it",
              "by an estimate"});
  f.number("wait_seconds", r.wait_seconds, not_negative(),
           {"seconds",
            "longest wait for another rank; then the job ends, naming the ranks that did not "
            "answer; 0: for ever"});
  f.integer("verify_every", r.verify_every, within(0, kMaxSteps),
            {"steps",
             "between comparisons of a hash of all weights over the data-parallel ranks; 0: "
             "never"});
}

void describe(ModelRecipe& r, FieldVisitor& f) {
  f.text("config", r.config,
         {.unit = "path",
          .meaning = "`config.json` (transformers or original layout), or a folder that has one",
          .required = true});
  f.text("init", r.init,
         {"`\"random\"` or folder",
          "the whole model: a run, a checkpoint, an export or a released model"});
  f.text("init_encoder", r.init_encoder,
         {"folder", "only SAM, LM encoder, projector and separator"});
  f.text("init_decoder", r.init_decoder,
         {"folder", "only embedding, decoder layers, norm and head"});
  f.text("init_sam", r.init_sam,
         {"folder or .safetensors",
          "SAM-base weights: ViT and neck (segment-anything's or transformers' names)"});
  f.text("init_qwen2", r.init_qwen2,
         {"folder or .safetensors", "Qwen2-0.5B weights: the LM encoder's layers and norm"});
  f.text("adapter", r.adapter,
         {"folder",
          "a low-rank adapter on `init` to go on with: of a run, or a PEFT folder; it trains, and "
          "nothing else"});
  f.choice("decoder_reads", r.decoder_reads, {"config", "queries", "visual"},
           {.meaning = "what of the LM encoder the decoder is given: its causal-flow queries, or "
                       "its visual tokens in raster order (an ablation; such a model has no "
                       "queries and no other program reads it)",
            .otherwise = "`\"config\"`: as the config.json says"});
  f.integer("queries", r.queries, within(0, 1 << 20),
            {.meaning = "rows of both query tables, so that every view has so many",
             .otherwise = "0: as the config.json says"});
  std::string residual(r.residual ? name_of(r.residual->kind) : "config");
  f.choice(
      "residual", residual, {"config", "plain", "hc", "mhc"},
      {.meaning = "residual connections; hc and mhc have keys of their own, in [mhc.md](mhc.md)",
       .otherwise = "`\"config\"`: as the config.json says"});
  r.residual.reset();
  if (residual != "config") r.residual = ResidualConfig{.kind = residual_kind_from(residual)};
}

void describe(LoraRecipe& r, FieldVisitor& f) {
  f.integer("rank", r.rank, within(1, 4096), {.meaning = "of the pairs B A"});
  r.alpha = 2 * static_cast<double>(r.rank);
  f.number("alpha", r.alpha, positive(),
           {.meaning = "the pairs count alpha / rank times", .otherwise = "2 × `rank`"});
  f.boolean("rslora", r.rslora, {.meaning = "alpha / √rank instead (arXiv 2312.03732)"});
  f.number("dropout", r.dropout, between(0, 0.999),
           {.meaning = "share of A's input that is left out in training"});
  f.texts("targets", r.targets,
          {"parts of the model, or prefixes of names where `*` is one step of the path",
           "whose matrices have pairs: `\"decoder.attention\"`, `\"decoder.mlp\"` (dense and "
           "shared), `\"experts\"`, `\"router\"`, `\"head\"`, `\"lm_encoder\"`, "
           "`\"tokenizer\"` (SAM), `\"projector\"`, or names (`model.layers.*.self_attn.q_proj`)"});
}

void describe(DataRecipe& r, FieldVisitor& f, bool has_sources) {
  f.texts("shards", r.shards,
          {"folders", "made by `lectern data shards` or `data pairs`",
           "required without `[[data.sources]]`", !has_sources});
  f.numbers("shard_weights", r.shard_weights, not_negative(),
            {.meaning = "how often each folder is drawn", .otherwise = "by number of pages"});
  f.text("validation", r.validation, {"folder", "shards of held-out documents", "`\"\"`: none"});
  f.text("tokenizer", r.tokenizer,
         {.unit = "path",
          .meaning = "the `tokenizer.json` the shards were made with",
          .required = true});
  f.choice("level", r.level, {"page", "line", "word", "mixed"}, {.meaning = "what one sample is"});
  for (const auto& [key, share, level] : {std::tuple{"page_share", &r.page_share, "page"},
                                          std::tuple{"line_share", &r.line_share, "line"},
                                          std::tuple{"word_share", &r.word_share, "word"}}) {
    *share = r.level == level;
    f.number(key, *share, not_negative(),
             {"", "of `\"mixed\"`; the three need not sum to 1", "1 for the `level`, else 0"});
  }
  f.text("prompt", r.prompt, {"text", "in front of the answer; `<image>` exactly once, first"});
  f.integer("max_text_tokens", r.max_text_tokens, within(1, kMaxTokens),
            {"tokens", "longer answers are left out"});
  f.integer("pack_tokens", r.pack_tokens, within(0, kMaxTokens),
            {"tokens", "pack samples into rows of up to this; above `max_text_tokens`",
             "0: one sample a row"});
  f.boolean("ascii_only", r.ascii_only, {.meaning = "leave out pieces with any other character"});
  f.integer("max_characters", r.max_characters, within(0, 1 << 20),
            {"characters", "longest word or line", "0: any"});
  f.integer("text_height", r.text_height, within(0, 4096),
            {"pixels", "height that a cut word or line is scaled to", "0: as it is"});
  f.integer("margin", r.margin, within(0, 4096), {"pixels", "white left of a pasted word or line"});
  f.choice("text_at", r.text_at, {"middle", "top"},
           {.meaning = "where in the view's height a word or line lies; at the top `margin` is "
                       "above it, as above regions"});
  f.integer("jitter_pixels", r.jitter_pixels, within(0, 4096),
            {"pixels",
             "pasted text moves by up to this, another way each time, inside the view (so the "
             "encoder cache never hits)"});
  f.integer("workers", r.workers, within(0, 256),
            {"threads", "that load in the background; 0: the training thread loads"});
}

void describe(SourceRecipe& r, FieldVisitor& f, const DataRecipe& data) {
  f.choice(
      "kind", r.kind, source_kinds(),
      {.meaning = "cut from pages, drawn from text, stored pictures with their own prompts and "
                  "answers, or the text of shards alone",
       .required = true});
  f.text("name", r.name,
         {"text", "for the curriculum and for metrics", "`\"<level or kind> <number>\"`"});
  f.number("weight", r.weight, positive(), {.meaning = "how often it is drawn"});
  const SourceDefaults defaults{data.prompt, data.ascii_only, data.max_characters,
                                data.max_text_tokens};
  auto settings = make_source_settings(r.kind);
  settings->describe(f, defaults);
  r.settings = std::move(settings);
}

void describe(CurriculumRecipe& r, FieldVisitor& f, const DataRecipe& data, std::size_t index) {
  r.name = fmt::format("level {}", index + 1);
  f.text("name", r.name, {"text", "of the level", "`\"level <number>\"`"});
  f.texts("sources", r.sources, {"names of `data.sources`", "the level's mixture", "all"});
  f.numbers("weights", r.weights, positive(),
            {"", "how often each of the sources is drawn", "their own"});
  f.texts("validation", r.validation,
          {"names of `data.validation_sources`",
           "what its evaluations read; each also has its own `eval_cer/<name>`, "
           "`eval_loss/<name>`",
           "all"});
  r.jitter_pixels = data.jitter_pixels;
  f.integer("jitter_pixels", r.jitter_pixels, within(0, 4096),
            {"pixels", "as in `[data]`", "`data.jitter_pixels`"});
  f.choice("measure", r.measure, {"cer", "loss"},
           {.meaning = "character error rate of all samples that were read; mean loss of the "
                       "validation sources"});
  f.number("advance_below", r.advance_below, not_negative(),
           {"", "the next level begins once the figure is at most this", "0: never"});
  f.integer("max_steps", r.max_steps, within(0, kMaxSteps),
            {"steps in the level", "and at the latest then", "0: any"});
}

void describe(ViewRecipe& r, FieldVisitor& f) {
  f.integer("global_size", r.global_size, within(16, 8192),
            {"pixels a side", "the padded view of the whole picture"});
  f.integer("tile_size", r.tile_size, within(16, 8192), {"pixels a side", "local tiles"});
  f.boolean("crop", r.crop, {.meaning = "cut 0 or 2..6 tiles as the reference does"});
  f.integers("resolutions", r.resolutions, within(16, 8192),
             {"pixels a side", "with `crop = false`: steps take turns between these sizes",
              "`[]`: `global_size`"});
  f.choice("read_by", r.read_by, {"page", "pieces"},
           {.meaning = "how the trained model reads pages: as wholes, or as runs of words, each in "
                       "a view of its own (kept in its `config.json`, like the next two and "
                       "`data.margin`, `data.text_height`, `data.text_at`)"});
  f.integer("piece_width", r.piece_width, within(1, 1 << 16),
            {"pixels", "with `\"pieces\"`: longest run; that of `cut_width`"});
  f.number("piece_dpi", r.piece_dpi, between(18, 1200),
           {"dots per inch", "with `\"pieces\"`: resolution of the pages that were cut"});
}

void describe(OptimizerRecipe& r, FieldVisitor& f) {
  f.number("learning_rate", r.learning_rate, positive(),
           {.meaning = "after the warm-up", .required = true});
  f.choice("schedule", r.schedule, {"cosine", "constant", "step"},
           {.meaning = "formulas: `nn/optim/schedule.h`"});
  f.number("min_learning_rate", r.min_learning_rate, not_negative(),
           {.meaning = "where cosine ends, at the last step; at most `learning_rate`"});
  f.integer("warmup_steps", r.warmup_steps, within(0, kMaxSteps),
            {"steps", "linear rise to `learning_rate`"});
  f.integers("step_milestones", r.step_milestones, within(1, kMaxSteps),
             {"steps", "`\"step\"`: from this step on the rate is `learning_rate` × factor"});
  f.numbers("step_factors", r.step_factors, not_negative(),
            {.meaning = "as many as there are milestones"});
  std::array<double, 2> betas = {r.beta1, r.beta2};
  f.pair("betas", betas, between(0.0, 0.999999), {.meaning = "of AdamW's two averages"});
  r.beta1 = betas[0];
  r.beta2 = betas[1];
  f.number("epsilon", r.epsilon, positive(), {.meaning = "added to the root of the second"});
  f.number("weight_decay", r.weight_decay, not_negative(),
           {.meaning = "decoupled, times the learning rate"});
  f.boolean("decay_norms_and_biases", r.decay_norms_and_biases,
            {.meaning = "decay parameters of one dimension too"});
  f.number("clip_norm", r.clip_norm, not_negative(), {"global gradient norm", "0: no clipping"});
}

void describe(BatchRecipe& r, FieldVisitor& f) {
  f.integer("global_size", r.global_size, within(1, 1 << 20),
            {.unit = "rows a step, over all ranks",
             .meaning = "a row is a sample, or a pack with `pack_tokens`; a multiple of "
                        "data-parallel ranks × `micro_batch` (of the ranks, with packs)",
             .required = true});
  f.integer("micro_batch", r.micro_batch, within(1, 1 << 16),
            {"rows a forward pass", "must divide `global_size`; packs go one at a time"});
}

void describe(MoeRecipe& r, FieldVisitor& f) {
  f.number("balance_loss", r.balance_loss, not_negative(),
           {"factor", "of the auxiliary load-balance loss, mean over layers"});
  f.number("bias_balancing_rate", r.bias_balancing_rate, not_negative(),
           {"step", "loss-free balancing: how far a router bias moves at each update"});
}

void describe(CheckpointRecipe& r, FieldVisitor& f) {
  f.integer("every", r.every, within(0, kMaxSteps), {"steps", "0: only at the end"});
  f.integer("keep", r.keep, within(1, kMaxSteps), {"checkpoints", "the newest that stay"});
  f.boolean("asynchronous", r.asynchronous,
            {.meaning = "write while training goes on, from a copy of 12 bytes a trained weight "
                        "([parallel.md](parallel.md)), which comes on top of `memory_gib`; false: "
                        "training waits, without a copy"});
}

void describe(EvaluationRecipe& r, FieldVisitor& f) {
  f.integer("every", r.every, within(0, kMaxSteps), {"steps", "0: only at the end"});
  f.integer("samples", r.samples, within(0, kMaxSteps), {"samples", "0: no evaluation"});
  f.integer("max_new_tokens", r.max_new_tokens, within(1, kMaxTokens),
            {"tokens", "longest reading", "`data.max_text_tokens`"});
}

void describe(EncoderCacheRecipe& r, FieldVisitor& f) {
  f.boolean("enabled", r.enabled,
            {"", "keep the encoder's output on disk", "true in stage 3 with a frozen encoder"});
  f.integer("max_bytes", r.max_bytes, at_least(0), {"bytes", "nothing more is kept once full"});
  f.text("dir", r.dir,
         {"path", "may be shared by runs with the same encoder, one at a time",
          "`\"\"`: `<run_dir>/encoder-cache`"});
}

void describe(LogRecipe& r, FieldVisitor& f) {
  f.boolean("wall_clock", r.wall_clock,
            {.meaning = "false: `metrics.jsonl` without seconds and bytes, equal for equal runs"});
  f.boolean("tensorboard", r.tensorboard, {.meaning = "write `events.out.tfevents.*`"});
  f.integer(
      "diagnostics_every", r.diagnostics_every, within(0, kMaxSteps),
      {"steps", "gains of residual streams and gradient norms of each layer ([mhc.md](mhc.md))",
       "0: never; 10 when `model.residual` is hc or mhc"});
  f.number("progress_seconds", r.progress_seconds, positive(),
           {"seconds", "between progress lines when not on a terminal"});
}

}  // namespace lectern
