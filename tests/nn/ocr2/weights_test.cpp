// Reading weights under published and module names, whole or in part, and refusing what does not
// fit without touching the model.
#include "nn/weights.h"

#include "core/io/file.h"
#include "tests/nn/ocr2/tiny_ocr2.h"
#include "tests/notices.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <map>

namespace lectern {
namespace {

using testing::throws_with;
using Named = std::vector<std::pair<std::string, Tensor>>;

/// transformers' name of a published tensor (docs/ocr2.md, section 4); expert stacks aside.
std::string module_name(std::string name) {
  const std::vector<std::pair<std::string, std::string>> prefixes = {
      {"model.sam_model.patch_embed.proj.",
       "model.vision_tower.sam_encoder.patch_embed.projection."},
      {"model.sam_model.blocks.", "model.vision_tower.sam_encoder.layers."},
      {"model.sam_model.neck.0.", "model.vision_tower.sam_encoder.neck.conv1."},
      {"model.sam_model.neck.1.", "model.vision_tower.sam_encoder.neck.layer_norm1."},
      {"model.sam_model.neck.2.", "model.vision_tower.sam_encoder.neck.conv2."},
      {"model.sam_model.neck.3.", "model.vision_tower.sam_encoder.neck.layer_norm2."},
      {"model.sam_model.net_2.", "model.vision_tower.sam_encoder.proj.conv1."},
      {"model.sam_model.net_3.", "model.vision_tower.sam_encoder.proj.conv2."},
      {"model.sam_model.pos_embed", "model.vision_tower.sam_encoder.pos_embed"},
      {"model.qwen2_model.model.model.", "model.vision_tower.vision_encoder."},
      {"model.qwen2_model.query_768.", "model.vision_tower.query_768_resolution."},
      {"model.qwen2_model.query_1024.", "model.vision_tower.query_1024_resolution."},
      {"model.projector.layers.", "model.multi_modal_projector."},
      {"model.view_seperator", "model.view_separator"},
      {"model.embed_tokens.", "model.language_model.embed_tokens."},
      {"model.layers.", "model.language_model.layers."},
      {"model.norm.", "model.language_model.norm."},
      {"lm_head.", "lm_head."}};
  for (const auto& [from, to] : prefixes) {
    if (!name.starts_with(from)) continue;
    name.replace(0, from.size(), to);
    if (name.find("sam_encoder.layers") != std::string::npos)
      if (const auto at = name.find(".norm"); at != std::string::npos)
        name.replace(at, 5, ".layer_norm");
    return name;
  }
  ADD_FAILURE() << "no module name for " << name;
  return name;
}

class Weights : public ::testing::Test {
 protected:
  Weights() : source_(testing::tiny_ocr2_config(), 1), target_(testing::tiny_ocr2_config(), 2) {
    testing::fill_weights(source_, 5);
    for (const auto& [name, tensor] : target_.store().state()) before_[name] = tensor.clone();
  }

  Named published() const { return source_.store().state(); }
  Named changed(const std::string& name, const Tensor& tensor) const {
    Named out = published();
    for (auto& [each, value] : out)
      if (each == name) value = tensor;
    return out;
  }
  std::filesystem::path write(const Named& tensors) const {
    save_safetensors(folder_.path() / "model.safetensors", tensors);
    return folder_.path();
  }
  void expect_equals_source(double bound = 0) {
    const Named want = source_.store().state(), got = target_.store().state();
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(testing::near(got[i].second, want[i].second, bound)) << want[i].first;
  }
  ::testing::AssertionResult refused(const Named& tensors,
                                     std::initializer_list<std::string_view> parts) {
    const auto path = write(tensors);
    const auto result = throws_with([&] { load_weights(target_, path); }, parts);
    for (const auto& [name, tensor] : target_.store().state())
      if (!testing::near(tensor, before_.at(name), 0))
        return ::testing::AssertionFailure() << name << " changed although loading failed";
    return result;
  }

  Ocr2Model source_, target_;
  std::map<std::string, Tensor> before_;
  testing::TemporaryFolder folder_;
};

TEST_F(Weights, PublishedNames) {
  const LoadReport report = load_weights(target_, write(published()));
  EXPECT_EQ(report.loaded, static_cast<std::int64_t>(published().size()));
  EXPECT_TRUE(report.skipped.empty());
  expect_equals_source();
}

TEST_F(Weights, ModuleNamesWithExpertStacks) {
  Named tensors;
  for (const auto& [name, tensor] : published())
    if (name.find(".experts.") == std::string::npos) {
      EXPECT_EQ(Ocr2Config().published_name(module_name(name)), name);
      EXPECT_EQ(Ocr2Config().published_name(name), name);
      tensors.emplace_back(module_name(name), tensor);
    }
  for (const Parameter& parameter : source_.store().parameters())
    if (parameter.name.find(".mlp.experts.") != std::string::npos)
      tensors.emplace_back("model.language_model" + parameter.name.substr(5),
                           parameter.variable.value());
  load_weights(target_, write(tensors));
  expect_equals_source();
}

TEST_F(Weights, StoredAsBFloat16) {
  Named tensors = published();
  for (auto& [name, tensor] : tensors) tensor = tensor.to(DType::bf16);
  load_weights(target_, write(tensors));
  expect_equals_source(1.0 / 256);  // half of the last of 8 bits
}

TEST_F(Weights, OneFileOrAFolderOfShards) {
  save_safetensors(folder_.path() / "whole.safetensors", published());
  load_weights(target_, folder_.path() / "whole.safetensors");
  expect_equals_source();
}

TEST_F(Weights, OnlyThePrefixesAreReplaced) {
  // Half of a model is enough when only that half is asked for; the rest is reported.
  Named encoder;
  for (const auto& [name, tensor] : published())
    if (name.starts_with("model.sam_model.")) encoder.emplace_back(name, tensor);
  encoder.emplace_back("other", Tensor::zeros({2}));
  const LoadReport report = load_weights(target_, write(encoder), {"model.sam_model."});
  EXPECT_EQ(report.skipped, std::vector<std::string>{"other"});
  const Named want = source_.store().state(), got = target_.store().state();
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(testing::near(
        got[i].second,
        want[i].first.starts_with("model.sam_model.") ? want[i].second : before_.at(want[i].first),
        0))
        << want[i].first;
}

TEST_F(Weights, WhatDoesNotFitIsRefusedAndNothingChanges) {
  Named tensors = published();
  const std::string file = folder_.path().string();
  const Named last(tensors.begin(), tensors.end() - 1);  // names are sorted: the separator
  EXPECT_TRUE(refused(last, {file, "has no tensor model.view_seperator [8]"}));
  tensors.emplace_back("model.extra", Tensor::zeros({1}));
  EXPECT_TRUE(refused(tensors, {file, "tensor model.extra is not part of this model (1 such"}));
  EXPECT_TRUE(refused(changed("model.norm.weight", Tensor::zeros({9})),
                      {file, "tensor model.norm.weight must be [8], got", "[9]"}));
  EXPECT_TRUE(refused(changed("model.norm.weight", Tensor::zeros({8}, DType::i32)),
                      {file, "tensor model.norm.weight must be floating"}));
  tensors = published();
  tensors.emplace_back("model.language_model.norm.weight", Tensor::zeros({8}));
  EXPECT_TRUE(refused(tensors, {file, "are the same parameter"}));
  EXPECT_TRUE(throws_with([&] { load_weights(target_, folder_.path() / "none"); }, {"none"}));
}

// Tables and masks that older programs saved: each program computes them itself.
TEST_F(Weights, BuffersThatAreComputedAnewAreLeftOut) {
  const testing::Notices notices;
  Named tensors = published();
  const std::vector<std::string> buffers = {
      "model.language_model.layers.0.self_attn.rotary_emb.inv_freq",
      "model.layers.0.self_attn.rotary_emb.inv_freq",
      "model.layers.1.self_attn.masked_bias",
      "model.qwen2_model.model.model.rotary_emb.original_inv_freq",
      "model.rotary_emb.cos_cached",
      "model.vision_model.embeddings.position_ids"};
  for (const std::string& name : buffers)
    if (name.find("language_model") == std::string::npos)
      tensors.emplace_back(name, Tensor::zeros({4}));
  tensors.emplace_back("model.layers.0.attn.bias", Tensor::zeros({1, 1, 6, 6}, DType::u8));
  const LoadReport report = load_weights(target_, write(tensors));
  EXPECT_EQ(report.computed.size(), 6u);
  EXPECT_TRUE(report.skipped.empty());
  expect_equals_source();
  EXPECT_EQ(notices.count(
                {folder_.path().string(), "left out model.layers.0.attn.bias", "(6 such tensors)"}),
            1);
  EXPECT_EQ(notices.said.size(), 1u);
}

TEST_F(Weights, WhatOnlyLooksLikeABufferIsForeign) {
  for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{
           {"model.layers.0.self_attn.q_proj.bias", {8}},
           {"model.layers.0.attn.bias", {1, 1, 6, 5}},
           {"model.layers.0.self_attn.rotary_emb.inv_freq.weight", {4}},
           {"model.inv_freq_scale", {4}}}) {
    Named tensors = published();
    tensors.emplace_back(name, Tensor::zeros(shape));
    EXPECT_TRUE(refused(tensors, {name, "is not part of this model"}));
  }
}

/// Rewrites the F32 tensors of a safetensors file as `name`, two bytes a value, all of them 1.5.
void rewrite_as_half(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  nlohmann::ordered_json header;
  std::string data;
  for (const std::string& name : file.names()) {
    const Shape shape = file.shape_of(name);
    const std::size_t begin = data.size();
    for (std::int64_t i = 0; i < shape.numel(); ++i) data += std::string("\x00\x3e", 2);
    header[name] = {{"dtype", "F16"},
                    {"shape", std::vector<std::int64_t>(shape.begin(), shape.end())},
                    {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  write_file(path, std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
}

TEST_F(Weights, StoredAsHalfPrecision) {
  const auto path = write(published());
  rewrite_as_half(path / "model.safetensors");
  const std::int64_t tensors = static_cast<std::int64_t>(published().size());
  EXPECT_EQ(load_weights(target_, path).loaded, tensors);
  for (const auto& [name, tensor] : target_.store().state())
    EXPECT_TRUE(testing::near(tensor, Tensor::full(tensor.shape(), 1.5), 0)) << name;
  // A model that would rather map its file gets memory of its own.
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Ocr2Model reader(testing::tiny_ocr2_config(), 0, dtype, ParameterValues::absent);
    const LoadReport report = load_weights(reader, path);
    EXPECT_EQ(report.loaded, tensors);
    EXPECT_EQ(report.mapped, 0);
    for (const auto& [name, tensor] : reader.store().state())
      EXPECT_TRUE(testing::near(tensor.to(DType::f32), Tensor::full(tensor.shape(), 1.5), 0));
  }
}

/// Tensors as transformers groups them: the experts of a layer in one stack.
Named stacked(const Ocr2Model& model) {
  Named tensors;
  for (const Parameter& parameter : model.store().parameters())
    if (parameter.name.find(".mlp.experts.") != std::string::npos)
      tensors.emplace_back(parameter.name, parameter.variable.value());
    else
      for (const ParameterPart& part : parameter.parts)
        tensors.emplace_back(part.name, parameter.part_of(parameter.variable.value(), part));
  return tensors;
}

TEST_F(Weights, EveryRankOfAMeshTakesItsOwnAndKnowsTheOthers) {
  const std::int64_t units = source_.config().unit_count();
  std::map<std::string, Tensor> want;
  for (const auto& [name, tensor] : published()) want[name] = tensor;
  for (const bool stacks : {false, true})
    for (const std::int64_t cut : {std::int64_t{0}, std::int64_t{2}, units - 2, units - 1})
      for (const std::int64_t expert_ranks : {1, 3}) {
        const auto path = write(stacks ? stacked(source_) : published());
        std::size_t tensors = 0;
        for (const bool late : {false, true})
          for (std::int64_t rank = 0; rank < expert_ranks; ++rank) {
            ModelPlacement placement{{}, rank, expert_ranks};
            if (cut > 0) placement.units = {late ? UnitRange{cut, units} : UnitRange{0, cut}};
            Ocr2Model part(source_.config(), 2, DType::f32, ParameterValues::initialised,
                           placement);
            const LoadReport report = load_weights(part, path);
            EXPECT_TRUE(report.skipped.empty());
            for (const auto& [name, tensor] : part.store().state())
              EXPECT_TRUE(testing::near(tensor, want.at(name), 0)) << name;
            tensors += part.store().state().size();
          }
        EXPECT_GE(tensors, want.size());
      }
}

TEST_F(Weights, ARankOfAMeshRefusesWhatIsForeignToAllOfThem) {
  const ModelPlacement placement{{{0, 2}}, 1, 3};
  Named tensors = published();
  tensors.emplace_back("model.layers.1.mlp.experts.3.gate_proj.weight", Tensor::zeros({4, 8}));
  const auto path = write(tensors);
  Ocr2Model part(source_.config(), 2, DType::f32, ParameterValues::initialised, placement);
  EXPECT_TRUE(throws_with([&] { load_weights(part, path); },
                          {"tensor model.layers.1.mlp.experts.3.gate_proj.weight is not part of "
                           "this model (1 such"}));
  // A stack of another number of experts does not fit any share.
  Named stacks = stacked(source_);
  for (auto& [name, tensor] : stacks)
    if (name == "model.layers.1.mlp.experts.down_proj") tensor = tensor.slice(0, 0, 2);
  const auto short_stack = write(stacks);
  Ocr2Model experts(source_.config(), 2, DType::f32, ParameterValues::initialised, {{}, 1, 3});
  EXPECT_TRUE(throws_with([&] { load_weights(experts, short_stack); },
                          {"experts.down_proj must be [3, 8, 4], got f32 [2, 8, 4]"}));
}

/// A share of a stack is a view of the mapped file, too.
TEST_F(Weights, ASharedStackStaysMapped) {
  const auto path = write(stacked(source_));
  Ocr2Model part(source_.config(), 0, DType::f32, ParameterValues::absent, {{}, 2, 3});
  const LoadReport report = load_weights(part, path);
  EXPECT_EQ(report.mapped, report.loaded);
  std::map<std::string, Tensor> want;
  for (const auto& [name, tensor] : published()) want[name] = tensor;
  for (const auto& [name, tensor] : part.store().state())
    EXPECT_TRUE(testing::near(tensor, want.at(name), 0)) << name;
}

/// A kernel may keep its own arrangement of a weight: loading must make it look again.
TEST_F(Weights, LossAfterLoadingIsTheSourcesLoss) {
  ModelInput input = testing::tiny_prompt(target_.config(), 2, 2, 5, 9);
  input.labels = input.input_ids.clone();
  const auto loss = [&](const Ocr2Model& model) {
    const NoGrad off;
    ForwardContext context;
    return model.loss(input, context).loss_sum.value().item();
  };
  const double before = loss(target_);
  load_weights(target_, write(published()));
  EXPECT_EQ(loss(target_), loss(source_));
  EXPECT_NE(loss(target_), before);
}

/// A model that waits for its values, read from `path`.
struct Reader {
  Reader(const std::filesystem::path& path, DType dtype)
      : model(testing::tiny_ocr2_config(), 0, dtype, ParameterValues::absent),
        report(load_weights(model, path)) {}

  Ocr2Model model;
  LoadReport report;
};

Tensor first_logits(const Ocr2Model& model) {
  const NoGrad off;
  ForwardContext context;
  const ModelInput input = testing::tiny_prompt(model.config(), 2, 2, 5, 9);
  DecodingCache cache(model.config().decoder, 2, 40);
  return model.decoder().step(model.embed(input, model.encode(input, context)).value(), cache,
                              context);
}

Named in_file_order(const Ocr2Model& model) { return model.store().file_order_state(); }

TEST_F(Weights, AFileInOurOrderStaysMapped) {
  const auto path = write(in_file_order(source_));
  const Reader mapped(path, DType::f32);
  EXPECT_EQ(mapped.report.loaded, static_cast<std::int64_t>(published().size()));
  EXPECT_EQ(mapped.report.mapped, mapped.report.loaded);
  // A shuffled file holds the same values, but no fused parameter in one piece.
  const Reader copied(write(published()), DType::f32);
  EXPECT_EQ(copied.report.loaded, mapped.report.loaded);
  EXPECT_LT(copied.report.mapped, mapped.report.mapped);
  EXPECT_GT(copied.report.mapped, 0) << "what is not fused needs no neighbours";
  EXPECT_TRUE(testing::near(first_logits(mapped.model), first_logits(source_), 0));
  EXPECT_TRUE(testing::near(first_logits(copied.model), first_logits(source_), 0));
  // The training way of loading copies everything.
  EXPECT_EQ(load_weights(target_, path).mapped, 0);
  expect_equals_source();
}

TEST_F(Weights, BFloat16FilesStayMappedForBFloat16Models) {
  Named tensors = in_file_order(source_);
  for (auto& [name, tensor] : tensors) tensor = tensor.to(DType::bf16);
  const auto path = write(tensors);
  const Reader mapped(path, DType::bf16);
  std::int64_t matrices = 0;
  for (const Parameter& parameter : mapped.model.store().parameters())
    if (parameter.variable.dtype() == DType::bf16)
      matrices += static_cast<std::int64_t>(parameter.parts.size());
  EXPECT_EQ(mapped.report.mapped, matrices);
  EXPECT_LT(mapped.report.mapped, mapped.report.loaded) << "norms and tables are f32";
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  const Reader copied(write(tensors), DType::bf16);
  EXPECT_LT(copied.report.mapped, matrices);
  EXPECT_TRUE(testing::near(first_logits(copied.model), first_logits(mapped.model), 0));
  // Rounding f32 weights gives the same model as reading rounded ones.
  const Reader rounded(write(in_file_order(source_)), DType::bf16);
  EXPECT_EQ(rounded.report.mapped, rounded.report.loaded - matrices);
}

/// Where a foreign writer left the data at an odd address nothing can be used in place.
TEST_F(Weights, UnalignedFilesAreCopied) {
  const auto path = write(in_file_order(source_)) / "model.safetensors";
  std::string bytes = read_file(path);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes.insert(8 + header, " ");
  ++header;
  std::memcpy(bytes.data(), &header, 8);
  write_file(path, bytes);
  const Reader copied(path.parent_path(), DType::f32);
  EXPECT_EQ(copied.report.mapped, 0);
  EXPECT_TRUE(testing::near(first_logits(copied.model), first_logits(source_), 0));
}

TEST_F(Weights, StacksOfExpertsStayMapped) {
  const Named tensors = stacked(source_);
  const Reader mapped(write(tensors), DType::f32);
  EXPECT_EQ(mapped.report.mapped, static_cast<std::int64_t>(tensors.size()));
  EXPECT_TRUE(testing::near(first_logits(mapped.model), first_logits(source_), 0));
}

}  // namespace
}  // namespace lectern
