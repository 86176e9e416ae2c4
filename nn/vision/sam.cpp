#include "nn/vision/sam.h"

#include "autograd/ops/attention.h"
#include "autograd/ops/conv2d.h"
#include "autograd/ops/elementwise.h"
#include "autograd/ops/interpolate.h"
#include "autograd/ops/layer_norm.h"
#include "autograd/ops/layout.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/patchify.h"
#include "autograd/ops/window.h"
#include "nn/blocks/block_graph.h"

#include <cmath>

namespace lectern {
namespace {

/// The neck's norms have this epsilon whatever layer_norm_eps says (as the reference).
constexpr double kNeckEpsilon = 1e-6;

/// Fixtures keep convolution outputs as (N, C, h, w); we compute with channels last.
void seam_channels_first(ForwardContext& context, const std::string& name, const Variable& x) {
  if (context.listens()) context.seam(name, x.value().permute({0, 3, 1, 2}).contiguous());
}

}  // namespace

SamBlock::SamBlock(ParameterStore& store, const std::string& prefix, const SamConfig& config,
                   std::int64_t window)
    : heads_(config.num_attention_heads), window_(window), epsilon_(config.layer_norm_eps) {
  const std::int64_t width = config.hidden_size;
  const std::int64_t side = window > 0 ? window : config.grid();
  const auto normal = Initialiser::normal(config.initial_deviation());
  const auto zeros = Initialiser::zeros();
  const auto ones = Initialiser::ones();
  const std::size_t first_parameter = store.parameters().size();
  const auto add = [&](const char* name, const Shape& shape, const Initialiser& initialiser) {
    return store.add(prefix + name, shape, initialiser);
  };
  const auto linear = [&](const char* name, std::int64_t rows, std::int64_t columns) {
    return Linear(store, {prefix + name, rows}, columns, normal, true);
  };
  norm1_weight_ = add("norm1.weight", {width}, ones);
  norm1_bias_ = add("norm1.bias", {width}, zeros);
  qkv_ = linear("attn.qkv", 3 * width, width);
  proj_ = linear("attn.proj", width, width);
  rel_pos_h_ = add("attn.rel_pos_h", {2 * side - 1, config.head_dim()}, zeros);
  rel_pos_w_ = add("attn.rel_pos_w", {2 * side - 1, config.head_dim()}, zeros);
  norm2_weight_ = add("norm2.weight", {width}, ones);
  norm2_bias_ = add("norm2.bias", {width}, zeros);
  lin1_ = linear("mlp.lin1", config.mlp_dim, width);
  lin2_ = linear("mlp.lin2", width, config.mlp_dim);
  parameters_.assign(store.parameters().begin() + static_cast<std::ptrdiff_t>(first_parameter),
                     store.parameters().end());
}

Variable SamBlock::attend(const Variable& tokens, std::int64_t side_h, std::int64_t side_w) const {
  const std::int64_t head_dim = tokens.dim(2) / heads_;
  AttentionArgs args;
  args.heads = args.kv_heads = heads_;
  args.head_dim = head_dim;
  args.scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  args.mask = MaskKind::full;
  const Variable qkv = qkv_.forward(tokens);
  const Variable mixed = attention(qkv, args, interpolate_linear(rel_pos_h_, 2 * side_h - 1),
                                   interpolate_linear(rel_pos_w_, 2 * side_w - 1));
  return proj_.forward(mixed);
}

Variable SamBlock::forward(const Variable& x) const {
  const std::int64_t batch = x.dim(0), h = x.dim(1), w = x.dim(2), width = x.dim(3);
  const Variable normed = layer_norm(x, norm1_weight_, norm1_bias_, epsilon_);
  Variable mixed;
  if (window_ == 0) {
    mixed = view(attend(view(normed, {batch, h * w, width}), h, w), {batch, h, w, width});
  } else {
    // Padding comes after the norm and is zero; padded tokens take part in the softmax.
    const Variable windows = window_partition(normed, window_);
    mixed = window_merge(attend(windows, window_, window_), window_, batch, h, w);
  }
  const Variable residual = add(x, mixed);
  const Variable hidden =
      gelu(lin1_.forward(layer_norm(residual, norm2_weight_, norm2_bias_, epsilon_)));
  return add(residual, lin2_.forward(hidden));
}

SamTokenizer::SamTokenizer(ParameterStore& store, const SamConfig& config,
                           const std::string& prefix)
    : config_(config) {
  const std::int64_t width = config.hidden_size, neck = config.output_channels;
  const std::int64_t patch = config.patch_size, grid = config.grid();
  const auto normal = Initialiser::normal(config.initial_deviation());
  const auto zeros = Initialiser::zeros();
  const auto ones = Initialiser::ones();
  patch_weight_ = store.add(prefix + "patch_embed.proj.weight",
                            {width, config.num_channels, patch, patch}, normal);
  patch_bias_ = store.add(prefix + "patch_embed.proj.bias", {width}, zeros);
  pos_embed_ = store.add(prefix + "pos_embed", {1, grid, grid, width}, zeros);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i)
    blocks_.emplace_back(store, fmt::format("{}blocks.{}.", prefix, i), config,
                         config.is_global(i) ? 0 : config.window_size);
  neck_conv1_ = store.add(prefix + "neck.0.weight", {neck, width, 1, 1}, normal);
  neck_norm1_weight_ = store.add(prefix + "neck.1.weight", {neck}, ones);
  neck_norm1_bias_ = store.add(prefix + "neck.1.bias", {neck}, zeros);
  neck_conv2_ = store.add(prefix + "neck.2.weight", {neck, neck, 3, 3}, normal);
  neck_norm2_weight_ = store.add(prefix + "neck.3.weight", {neck}, ones);
  neck_norm2_bias_ = store.add(prefix + "neck.3.bias", {neck}, zeros);
  const auto& channels = config.downsample_channels;
  compress1_ = store.add(prefix + "net_2.weight", {channels[0], neck, 3, 3}, normal);
  compress2_ = store.add(prefix + "net_3.weight", {channels[1], channels[0], 3, 3}, normal);
}

Variable SamTokenizer::embed(const Tensor& pixels, ForwardContext& context,
                             const std::string& view_name) const {
  const Tensor& weight = patch_weight_.value();
  const Tensor there = pixels.to(weight.device()).to(weight.dtype());
  const Variable patches = patchify(Variable(there), config_.patch_size);
  const std::int64_t width = config_.hidden_size;
  const Variable embedded = linear(patches, view(patch_weight_, {width, -1}), patch_bias_);
  context.seam(view_name + "sam.patch_embed", embedded.value());
  const Variable positioned =
      add(embedded, interpolate_bicubic(pos_embed_, embedded.dim(1), embedded.dim(2)));
  context.seam(view_name + "sam.pos_added", positioned.value());
  return positioned;
}

Variable SamTokenizer::forward(const Tensor& pixels, ForwardContext& context,
                               const std::string& view_name) const {
  check_ndim(pixels, 4, "SamTokenizer", "pixels [N, 3, S, S]");
  Variable x = embed(pixels, context, view_name);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const SamBlock& block = blocks_[i];
    x = run_block([&block](const Variable& in, ForwardContext&) { return block.forward(in); }, x,
                  variables_of(block.parameters()), context);
    context.seam(fmt::format("{}sam.block{}", view_name, i), x.value());
  }
  x = conv2d(x, neck_conv1_);
  x = layer_norm(x, neck_norm1_weight_, neck_norm1_bias_, kNeckEpsilon);
  x = conv2d(x, neck_conv2_, {}, {.stride = 1, .padding = 1});
  x = layer_norm(x, neck_norm2_weight_, neck_norm2_bias_, kNeckEpsilon);
  seam_channels_first(context, view_name + "sam.neck", x);
  x = conv2d(x, compress1_, {}, {.stride = 2, .padding = 1});
  seam_channels_first(context, view_name + "compressor.conv1", x);
  x = conv2d(x, compress2_, {}, {.stride = 2, .padding = 1});
  seam_channels_first(context, view_name + "compressor.out", x);
  return x;
}

}  // namespace lectern
