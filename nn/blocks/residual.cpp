#include "nn/blocks/residual.h"

#include "autograd/ops/elementwise.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

/// Share of the diagonal in a fresh H_res.
constexpr double kDiagonal = 0.97;
/// A gate that is 1 in f32, for a single stream.
constexpr double kOpen = 20.0;

/// logit(x)
double logit(double x) { return std::log(x / (1 - x)); }

/// H_pre: half from the favoured stream, half from the others.
double pre_bias(std::int64_t streams, bool favoured) {
  if (streams == 1) return kOpen;
  return favoured ? 0.0 : logit(0.5 / static_cast<double>(streams - 1));
}

void set(const Variable& variable, std::int64_t at, double value) {
  dispatch_floating(variable.dtype(), "residual",
                    [&]<typename T>() { variable.value().data<T>()[at] = static_cast<T>(value); });
}

void initialise_mapping(const StreamVariables& parameters, const ResidualConfig& config,
                        std::int64_t index) {
  const std::int64_t n = config.streams, favoured = index % n;
  const bool hc = config.mapping() == StreamMapping::hc;
  parameters.scale.value().fill(0.01);
  for (std::int64_t i = 0; i < n; ++i) {
    set(parameters.base, i, hc ? (i == favoured ? 1.0 : 0.0) : pre_bias(n, i == favoured));
    if (hc) set(parameters.base, n + i, 1.0);
  }
  const std::int64_t res = 2 * n, count = parameters.base.value().numel() - res;
  if (config.mapping() == StreamMapping::exact) {  // entry 0 is the identity permutation
    if (count > 1)
      set(parameters.base, res, std::log(kDiagonal / (1 - kDiagonal) * double(count - 1)));
    return;
  }
  const double diagonal = hc ? 1.0
                          : n == 1
                              ? 0.0
                              : std::log(kDiagonal / (1 - kDiagonal) * static_cast<double>(n - 1));
  for (std::int64_t i = 0; i < n; ++i) set(parameters.base, res + i * (n + 1), diagonal);
}

}  // namespace

ResidualConnection::ResidualConnection(ParameterStore& store, const std::string& prefix,
                                       const ResidualConfig& config, std::int64_t width,
                                       std::int64_t index)
    : config_(config) {
  if (config.is_plain()) return;
  args_ = {
      .mapping = config.mapping(),
      .convention = config.kind == ResidualKind::hc ? StreamConvention::paper : config.convention,
      .iterations = config.iterations,
      .pre = config.h_pre,
      .post = config.h_post,
      .res = config.h_res};
  const auto shapes = stream_parameter_shapes(args_.mapping, config.streams, width);
  // HC's dynamic part starts at zero, as in its paper; mHC's is small through `scale`.
  const auto projection =
      args_.mapping == StreamMapping::hc ? Initialiser::zeros() : Initialiser::normal(0.02);
  parameters_ = {store.add(prefix + "fn", shapes.fn, projection),
                 store.add(prefix + "base", shapes.base, Initialiser::zeros()),
                 store.add(prefix + "scale", shapes.scale, Initialiser::zeros())};
  if (store.values() == ParameterValues::initialised && parameters_.fn.defined())
    initialise_mapping(parameters_, config, index);
}

Streams ResidualConnection::around(const Streams& x, const Layer& layer,
                                   ForwardContext& context) const {
  if (config_.is_plain()) return Streams(add(x.graph, layer(x.graph)));
  const StreamRead read = stream_read(x, parameters_, args_);
  if (context.want_stream_statistics) context.stream_mixes.push_back(read.mix);
  return stream_write(x, read, layer(read.input));
}

ResidualStack::ResidualStack(ParameterStore& store, const std::string& prefix,
                             const std::string& name, const ResidualConfig& config,
                             std::int64_t width)
    : name_(name), config_(config) {
  if (config.is_plain() || config.merge == StreamMerge::mean) return;
  const std::int64_t n = config.streams;
  const auto shapes = stream_parameter_shapes(StreamMapping::head, n, width);
  head_ = {store.add(prefix + "hc_head.hc_fn", shapes.fn, Initialiser::normal(0.02)),
           store.add(prefix + "hc_head.hc_base", shapes.base, Initialiser::zeros()),
           store.add(prefix + "hc_head.hc_scale", shapes.scale, Initialiser::zeros())};
  if (store.values() == ParameterValues::absent || !head_.fn.defined()) return;
  head_.scale.value().fill(0.01);
  for (std::int64_t i = 0; i < n; ++i)
    set(head_.base, i, n == 1 ? kOpen : logit(1.0 / static_cast<double>(n)));
}

Streams ResidualStack::enter(const Variable& x, ForwardContext& context) const {
  context.stream_mixes.clear();
  return config_.is_plain() ? Streams(x) : expand_streams(x, config_.streams);
}

Streams ResidualStack::at_block(const Streams& x, std::size_t index, std::size_t blocks,
                                const ForwardContext& context) const {
  if (config_.is_plain() || context.stream_interval == 0 || !grad_enabled()) return x;
  const auto count = static_cast<std::int64_t>(blocks);
  const std::int64_t interval = context.stream_interval > 0
                                    ? context.stream_interval
                                    : stream_interval(config_.streams, count, count);
  return static_cast<std::int64_t>(index) % interval == 0 ? x.begin_segment() : x;
}

Variable ResidualStack::leave(const Streams& x, ForwardContext& context) const {
  if (config_.is_plain()) return x.graph;
  if (context.want_stream_statistics)
    context.stream_statistics.push_back(stream_statistics(name_, context.stream_mixes));
  context.stream_mixes.clear();
  return config_.merge == StreamMerge::mean ? mean_of_streams(x) : merge_streams(x, head_);
}

std::int64_t stream_interval(std::int64_t streams, std::int64_t blocks, std::int64_t stage_blocks) {
  const double n = static_cast<double>(streams);
  const double best = std::sqrt(n * 2.0 * static_cast<double>(blocks) / (n + 2.0)) / 2.0;
  std::int64_t out = 1;
  for (std::int64_t i = 1; i <= stage_blocks; ++i)
    if (stage_blocks % i == 0 &&
        std::abs(static_cast<double>(i) - best) < std::abs(static_cast<double>(out) - best))
      out = i;
  return out;
}

void convert_convention(const ParameterStore& store, StreamConvention from, StreamConvention to,
                        const std::string& prefix) {
  const auto transposes = [](StreamConvention c) { return c == StreamConvention::deepseek_v4; };
  if (transposes(from) == transposes(to)) return;
  for (const Parameter& parameter : store.parameters()) {
    const std::string& name = parameter.name;
    const bool mapping = name.ends_with("_hc.fn") || name.ends_with("_hc.base");
    if (!mapping || !name.starts_with(prefix)) continue;
    const Tensor& value = parameter.variable.value();
    const std::int64_t rows = value.dim(0);
    const std::int64_t n = std::llround(std::sqrt(static_cast<double>(rows + 1))) - 1;
    if (n * n + 2 * n != rows) continue;                          // not mHC with Sinkhorn
    const Tensor before = value.clone(), after = before.clone();  // `value` may lie in a file
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int64_t to_row = 2 * n + i * n + j, from_row = 2 * n + j * n + i;
        after.slice(0, to_row, to_row + 1).copy_from(before.slice(0, from_row, from_row + 1));
      }
    Variable variable = parameter.variable;
    variable.set_value(after);
  }
}

double stream_memory(const ResidualConfig& config, std::int64_t blocks, std::int64_t interval,
                     std::int64_t tokens, std::int64_t width, DType dtype) {
  if (config.is_plain()) return 0;
  const double row = static_cast<double>(tokens) * static_cast<double>(width) *
                     static_cast<double>(size_of(dtype));
  const double layers = 2.0 * static_cast<double>(blocks), n = static_cast<double>(config.streams);
  // Kept outputs; the streams that enter the merge; the gradient of the streams and its successor.
  const double always = layers * row + 3 * n * row;
  if (interval == 0) return always + layers * n * row;
  const double segments = std::ceil(static_cast<double>(blocks) / static_cast<double>(interval));
  return always + segments * n * row + (2.0 * static_cast<double>(interval) - 1) * n * row;
}

}  // namespace lectern
