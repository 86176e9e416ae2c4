#include "recipes/parity/ocr2.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "nn/generation/generation.h"
#include "nn/ocr2/model.h"
#include "nn/optim/optimizer.h"
#include "nn/weights.h"
#include "recipes/parity/kinds.h"
#include "recipes/parity/ocr2_preprocess.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <map>

namespace lectern {
namespace {

using nlohmann::json;
using Tensors = std::map<std::string, Tensor>;

double relative(double got, double want) {
  const double difference = std::abs(got - want) / std::max(std::abs(want), 1e-12);
  return std::isnan(difference) ? HUGE_VAL : difference;
}

/// Keeps every stride-th index of a dimension.
Tensor every(const Tensor& tensor, int dim, std::int64_t stride) {
  if (stride == 1) return tensor;
  std::vector<std::int64_t> kept;
  Shape shape = tensor.shape();
  shape[dim] = (tensor.dim(dim) + stride - 1) / stride;
  Tensor out = Tensor::empty(shape, tensor.dtype());
  for (std::int64_t i = 0; i < shape[dim]; ++i)
    out.slice(dim, i, i + 1).copy_from(tensor.slice(dim, i * stride, i * stride + 1));
  return out;
}

/// Brings a seam to the form in which the fixture keeps it: its first views, and every k-th row and
/// column (dimensions 1, 2 of channel-last seams, 2, 3 of channel-first ones).
Tensor fit_vision_seam(const std::string& name, Tensor value, const Tensor& reference) {
  if (value.shape() == reference.shape()) return value;
  if (value.ndim() != reference.ndim()) return value;
  if (reference.dim(0) < value.dim(0)) value = value.slice(0, 0, reference.dim(0));
  if (value.ndim() != 4) return value.contiguous();
  const bool channel_first =
      name.find(".sam.neck") != std::string::npos || name.find(".compressor.") != std::string::npos;
  const int first = channel_first ? 2 : 1;
  for (int dim = first; dim < first + 2; ++dim)
    if (reference.dim(dim) > 0 && reference.dim(dim) < value.dim(dim))
      value = every(value, dim, (value.dim(dim) + reference.dim(dim) - 1) / reference.dim(dim));
  return value.contiguous();
}

class Ocr2Case {
 public:
  Ocr2Case(const std::filesystem::path& folder, const std::string& name, const Ocr2Config& config,
           ParityReport& report, Device device)
      : folder_(folder),
        name_(name),
        config_(config),
        report_(report),
        device_(device),
        file_(SafetensorsFile::open(folder / ("case_" + name + ".safetensors"))),
        input_(read_input()) {}

  void check_forward_and_gradients() {
    const auto model = make_model();
    Tensors seams;
    ForwardContext context;
    context.record_seam = [&](const std::string& seam, const Tensor& value) {
      if (file_.contains(seam)) seams[seam] = value.to(Device{}).clone();
    };
    const ModelLoss loss = model->loss(input_, context);
    for (const auto& [seam, value] : seams) compare_seam(seam, value);
    for (const std::string& seam : file_.names())
      if (is_seam(seam) && !seams.contains(seam)) missing(seam);
    compare_logits(*model);
    const double mean = loss.loss_sum.value().item() / static_cast<double>(loss.count);
    add_output("loss", std::abs(mean - file_.get("loss").item()), file_.get("loss"));
    loss.loss_sum.backward(
        Tensor::full(loss.loss_sum.shape(), 1.0 / static_cast<double>(loss.count)));
    compare_gradients(*model);
  }

  void check_trajectory(const std::string& mode, const json& expected, const json& optimizer_spec) {
    const auto model = make_model();
    model->store().freeze(expected.at("frozen_prefixes").get<std::vector<std::string>>());
    const NamedParameters trainable = model->store().trainable();
    AdamW optimizer({.learning_rate = optimizer_spec.at("lr").get<double>(),
                     .beta1 = optimizer_spec.at("betas")[0].get<double>(),
                     .beta2 = optimizer_spec.at("betas")[1].get<double>(),
                     .epsilon = optimizer_spec.at("eps").get<double>(),
                     .weight_decay = optimizer_spec.at("weight_decay").get<double>()});
    optimizer.add_group("all", trainable);
    const double max_norm = optimizer_spec.at("max_grad_norm").get<double>();
    const auto losses = expected.at("loss").get<std::vector<double>>();
    const auto norms = expected.at("grad_norm_before_clip").get<std::vector<double>>();
    double worst_loss = 0, worst_norm = 0;
    for (std::size_t step = 0; step < losses.size(); ++step) {
      ForwardContext context;
      const ModelLoss loss = model->loss(input_, context);
      const double count = static_cast<double>(loss.count);
      worst_loss =
          std::max(worst_loss, relative(loss.loss_sum.value().item() / count, losses[step]));
      if (step >= norms.size()) break;
      loss.loss_sum.backward(Tensor::full(loss.loss_sum.shape(), 1.0 / count));
      const double norm = gradient_norm(trainable);
      worst_norm = std::max(worst_norm, relative(norm, norms[step]));
      optimizer.step(optimizer_spec.at("lr").get<double>(), clip_scale(norm, max_norm));
      optimizer.clear_gradients();
    }
    add(fmt::format("trajectory {} loss", mode), worst_loss, 1e-4, "relative");
    add(fmt::format("trajectory {} grad norm", mode), worst_norm, 1e-3, "relative");
    compare_final_parameters(*model, mode, expected.at("final_param_sum_and_l2"));
  }

  void check_greedy(const json& expected) {
    const auto model = make_model();
    const auto want = expected.at("tokens").get<std::vector<std::int32_t>>();
    const std::int64_t length = expected.at("prompt_len").get<std::int64_t>();
    ModelInput prompt;
    prompt.input_ids = input_.input_ids.slice(0, 0, 1).slice(1, 0, length).contiguous();
    prompt.pixel_values = input_.pixel_values.slice(0, 0, 1).contiguous();
    prompt.num_local_patches = {input_.num_local_patches.at(0)};
    if (prompt.num_local_patches[0] > 0)
      prompt.pixel_values_local =
          input_.pixel_values_local.slice(0, 0, prompt.num_local_patches[0]).contiguous();
    GenerationArgs args;
    args.max_new_tokens = static_cast<std::int64_t>(want.size());
    const auto got = generate(*model, prompt, args).at(0);
    std::size_t equal = 0;
    while (equal < want.size() && equal < got.size() && got[equal] == want[equal]) ++equal;
    add("greedy tokens", static_cast<double>(want.size() - equal), 0,
        fmt::format("{} of {} equal", equal, want.size()));
  }

 private:
  std::unique_ptr<Ocr2Model> make_model() const {
    auto model = std::make_unique<Ocr2Model>(config_, 0);
    load_weights(*model, folder_);
    model->store().to(device_);
    return model;
  }

  ModelInput read_input() const {
    ModelInput out;
    out.input_ids = file_.get("in.input_ids").to(DType::i32);
    out.labels = file_.get("in.labels").to(DType::i32);
    out.pixel_values = file_.get("in.pixel_values").to(DType::f32);
    if (file_.contains("in.pixel_values_local"))
      out.pixel_values_local = file_.get("in.pixel_values_local").to(DType::f32);
    const Tensor patches = file_.get("in.num_local_patches").to(DType::i64);
    out.num_local_patches.assign(patches.data<std::int64_t>(),
                                 patches.data<std::int64_t>() + patches.numel());
    return out;
  }

  static bool is_seam(const std::string& name) {
    return !name.ends_with(".margin") &&
           (name.starts_with("global.") || name.starts_with("local.") ||
            name.starts_with("decoder.") || name.starts_with("moe."));
  }

  void add(const std::string& what, double difference, double bound, std::string note = {}) {
    report_.rows.push_back({fmt::format("{} {}", name_, what), difference, bound,
                            difference <= bound, std::move(note)});
  }
  void missing(const std::string& what) {
    report_.rows.push_back(
        {fmt::format("{} {}", name_, what), HUGE_VAL, 0, false, "lectern records no such seam"});
  }
  void add_output(const std::string& what, double difference, const Tensor& reference) {
    const double magnitude = max_abs(reference);
    add(what, difference, 1e-4 * std::max(1.0, magnitude),
        fmt::format("max |ref| {:.3g}", magnitude));
  }

  void compare_seam(const std::string& seam, const Tensor& value) {
    const Tensor reference = file_.get(seam);
    if (seam.starts_with("decoder.") || seam.starts_with("moe.")) {
      compare_rows(seam, value, reference);
      return;
    }
    const Tensor fitted = fit_vision_seam(seam, value, reference);
    if (fitted.shape() != reference.shape()) {
      add(seam, HUGE_VAL, 0,
          fmt::format("got {}, want {}", fitted.describe(), reference.describe()));
      return;
    }
    add_output(seam, max_difference(fitted, reference), reference);
  }

  /// Seams of the decoder: the positions that the fixture keeps, without padded ones.
  void compare_rows(const std::string& seam, const Tensor& value, const Tensor& reference) {
    const Tensor positions = file_.get("decoder_positions").to(DType::i64);
    const Tensor mask = file_.get("in.attention_mask").to(DType::i64);
    const std::int64_t width = value.dim(-1);
    const Tensor rows = reference.view({reference.dim(0), reference.dim(1), width});
    double worst = 0;
    for (std::int64_t b = 0; b < rows.dim(0); ++b) {
      for (std::int64_t i = 0; i < positions.numel(); ++i) {
        const std::int64_t at = positions.data<std::int64_t>()[i];
        if (mask.data<std::int64_t>()[b * mask.dim(1) + at] == 0) continue;
        worst = std::max(worst, max_difference(value.slice(0, b, b + 1).slice(1, at, at + 1),
                                               rows.slice(0, b, b + 1).slice(1, i, i + 1)));
      }
    }
    if (seam.ends_with("topk_index")) {
      add(seam, worst, 0, "expert indices must be equal");
    } else {
      add_output(seam, worst, reference);
    }
  }

  void compare_logits(const Ocr2Model& model) {
    const NoGrad off;
    ForwardContext context;
    const Variable hidden = model.decoder().forward(
        model.embed(input_, model.encode(input_, context)), causal_layout(input_), context);
    const Tensor rows = file_.get("logit_rows").to(DType::i64);
    Tensor chosen = Tensor::empty({rows.dim(0), hidden.dim(2)}, DType::f32, device_);
    for (std::int64_t i = 0; i < rows.dim(0); ++i) {
      const std::int64_t b = rows.data<std::int64_t>()[2 * i],
                         at = rows.data<std::int64_t>()[2 * i + 1];
      chosen.slice(0, i, i + 1)
          .copy_from(hidden.value()
                         .slice(0, b, b + 1)
                         .slice(1, at, at + 1)
                         .contiguous()
                         .view({1, hidden.dim(2)}));
    }
    const Tensor reference = file_.get("logits_at_rows");
    add_output("logits",
               max_difference(model.decoder().logits(Variable(chosen)).value(), reference),
               reference);
  }

  void compare_gradients(const Ocr2Model& model) {
    double largest = 0, worst = 0;
    std::string worst_name;
    std::int64_t compared = 0;
    for (const std::string& name : file_.names())
      if (name.starts_with("grad.")) largest = std::max(largest, l2(file_.get(name)));
    for (const auto& [name, gradient] : model.store().gradients()) {
      if (!file_.contains("grad." + name)) continue;
      const Tensor reference = file_.get("grad." + name);
      const double norm = l2(reference);
      // Tiny references: the absolute bound 1e-6, expressed on the scale of the relative one.
      const double difference = norm < 1e-7 * largest
                                    ? max_difference(gradient, reference) * (1e-3 / 1e-6)
                                    : l2_difference(gradient, reference) / norm;
      ++compared;
      if (difference >= worst) {
        worst = difference;
        worst_name = name;
      }
    }
    std::int64_t expected = 0;
    for (const std::string& name : file_.names()) expected += name.starts_with("grad.") ? 1 : 0;
    if (expected == 0) return;
    add("gradients", compared == expected ? worst : HUGE_VAL, 1e-3,
        fmt::format("{} of {} tensors, worst {}", compared, expected, worst_name));
    const double norm = gradient_norm(model.store().trainable());
    add("gradient norm", relative(norm, file_.get("grad_norm").item()), 1e-3, "relative");
  }

  void compare_final_parameters(const Ocr2Model& model, const std::string& mode,
                                const json& expected) {
    double worst = 0;
    std::string worst_name;
    for (const auto& [name, value] : model.store().state()) {
      if (!expected.contains(name)) continue;
      const double difference = relative(l2(value), expected.at(name).at(1).get<double>());
      if (difference >= worst) {
        worst = difference;
        worst_name = name;
      }
    }
    add(fmt::format("trajectory {} final parameters", mode), worst, 1e-3,
        "relative L2 norm, worst " + worst_name);
  }

  std::filesystem::path folder_;
  std::string name_;
  const Ocr2Config& config_;
  ParityReport& report_;
  Device device_;
  SafetensorsFile file_;
  ModelInput input_;
};

json read_json(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? parse_json(read_file(path), path.string())
                                       : json::object();
}

}  // namespace

ParityReport parity_ocr2(const std::filesystem::path& folder, Device device) {
  const Ocr2Config config = read_ocr2_config(folder / "config.json");
  const json trajectories = read_json(folder / "trajectory.json");
  const json generated = read_json(folder / "generate.json");
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (file.starts_with("case_") && file.ends_with(".safetensors"))
      names.push_back(file.substr(5, file.size() - 5 - 12));
  }
  std::sort(names.begin(), names.end());
  if (names.empty()) fail<IoError>(fmt::format("{}: has no case_*.safetensors", folder.string()));

  ParityReport report;
  try {
    for (const std::string& name : names) {
      Ocr2Case test(folder, name, config, report, device);
      test.check_forward_and_gradients();
      if (trajectories.contains("cases") && trajectories["cases"].contains(name))
        for (const auto& [mode, expected] : trajectories["cases"][name].items())
          test.check_trajectory(mode, expected, trajectories.at("optimizer"));
      if (generated.contains(name)) test.check_greedy(generated[name]);
    }
  } catch (const json::exception& error) {
    fail<IoError>(
        fmt::format("{}: trajectory.json or generate.json: {}", folder.string(), error.what()));
  }
  return report;
}

namespace ocr2 {

std::vector<ParityKind> parity_kinds() {
  return {{"ocr2", parity_ocr2}, {"preprocess", [](const std::filesystem::path& folder, Device) {
                                    return parity_preprocess(folder);
                                  }}};
}

}  // namespace ocr2

}  // namespace lectern
