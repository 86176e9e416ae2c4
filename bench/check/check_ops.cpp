// check_ops --list | check_ops CASE: runs one operation, at a tiny size, on one thread. What runs
// inside lectern_counted() is what bench/check.py counts; everything before it warms up.
#include "autograd/ops/attention.h"
#include "autograd/ops/experts.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_bf16.h"
#include "core/ops/adamw.h"
#include "core/ops/convert.h"
#include "core/ops/elementwise.h"
#include "core/ops/swiglu.h"
#include "core/parallel.h"
#include "core/random.h"

#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

/// The function whose instructions are counted: callgrind knows it by this name.
extern "C" __attribute__((noinline)) void lectern_counted(const std::function<void()>& f) { f(); }

namespace lectern {
namespace {

using Case = std::pair<std::string, std::function<std::function<void()>()>>;

Tensor random_tensor(const Shape& shape, double standard_deviation = 1) {
  Tensor out = Tensor::empty(shape);
  Random(1, to_string(shape)).fill_normal(out, 0, standard_deviation);
  return out;
}

Variable leaf(const Shape& shape) { return Variable(random_tensor(shape), true); }

std::function<void()> product_f32() {
  const GemmArgs args{
      .transpose_b = true, .m = 96, .n = 64, .k = 96, .lda = 96, .ldb = 96, .ldc = 64};
  return [args, a = random_tensor({96, 96}), b = random_tensor({64, 96}),
          c = Tensor::zeros({96, 64})] {
    gemm(args, a.data<float>(), b.data<float>(), c.data<float>());
  };
}

std::function<void()> product_bf16() {
  const GemmArgs args{
      .transpose_b = true, .m = 96, .n = 64, .k = 96, .lda = 96, .ldb = 96, .ldc = 64};
  return [args, a = convert(random_tensor({96, 96}), DType::bf16),
          b = convert(random_tensor({64, 96}), DType::bf16), c = Tensor::zeros({96, 64})] {
    gemm_bf16(args, a.data<BFloat16>(), b.data<BFloat16>(), c.data<float>());
  };
}

/// Forward and backward of a graph, whose gradients are dropped afterwards.
std::function<void()> both_ways(std::vector<Variable> leaves,
                                std::function<Variable(const std::vector<Variable>&)> f) {
  return [leaves, f] {
    const Variable out = f(leaves);
    out.backward(Tensor::full(out.shape(), 1));
    for (Variable variable : leaves) variable.clear_grad();
  };
}

std::function<void()> linear_case() {
  return both_ways({leaf({48, 64}), leaf({96, 64}), leaf({96})},
                   [](const std::vector<Variable>& v) { return linear(v[0], v[1], v[2]); });
}

std::function<void()> attention_case(MaskKind mask) {
  AttentionArgs args;
  args.heads = args.kv_heads = 2;
  args.head_dim = 32;
  args.scale = 0.177;
  args.mask = mask;
  return both_ways({leaf({1, 64, 192})},
                   [args](const std::vector<Variable>& v) { return attention(v[0], args); });
}

std::function<void()> window_attention_case() {
  AttentionArgs args;
  args.heads = args.kv_heads = 2;
  args.head_dim = 32;
  args.scale = 0.177;
  return both_ways(
      {leaf({2, 49, 192}), leaf({13, 32}), leaf({13, 32})},
      [args](const std::vector<Variable>& v) { return attention(v[0], args, v[1], v[2]); });
}

std::function<void()> experts_case() {
  Tensor indices = Tensor::empty({32, 2}, DType::i32);
  for (std::int32_t i = 0; i < 64; ++i) indices.data<std::int32_t>()[i] = i * 7 % 4;
  return both_ways({leaf({32, 32}), leaf({32, 2}), leaf({4, 48, 32}), leaf({4, 32, 24})},
                   [indices](const std::vector<Variable>& v) {
                     return experts(v[0], v[1], indices, v[2], v[3]);
                   });
}

std::function<void()> loss_case() {
  Tensor labels = Tensor::empty({32}, DType::i32);
  for (std::int32_t i = 0; i < 32; ++i) labels.data<std::int32_t>()[i] = i * 5 % 200;
  return both_ways({leaf({32, 48}), leaf({200, 48})}, [labels](const std::vector<Variable>& v) {
    return linear_cross_entropy(v[0], v[1], labels).loss_sum;
  });
}

std::function<void()> adamw_case() {
  const Shape shape{64, 100};
  const AdamWParameter parameter{random_tensor(shape),
                                 random_tensor(shape),
                                 Tensor::zeros(shape),
                                 Tensor::zeros(shape),
                                 0.1,
                                 1};
  return [parameter] {
    adamw_update({&parameter, 1},
                 {.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8});
  };
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"gemm_f32", product_f32},
      {"gemm_bf16", product_bf16},
      {"linear", linear_case},
      {"attention_causal", [] { return attention_case(MaskKind::causal); }},
      {"attention_full", [] { return attention_case(MaskKind::full); }},
      {"attention_window", window_attention_case},
      {"experts", experts_case},
      {"linear_cross_entropy", loss_case},
      {"rms_norm",
       [] {
         return both_ways({leaf({64, 96}), leaf({96})}, [](const std::vector<Variable>& v) {
           return rms_norm(v[0], v[1], 1e-6);
         });
       }},
      {"gelu",
       [] {
         return [x = random_tensor({64, 100})] { gelu(x); };
       }},
      {"swiglu",
       [] {
         return [x = random_tensor({64, 128})] { swiglu(x); };
       }},
      {"convert",
       [] {
         return [x = random_tensor({64, 100})] { convert(x, DType::bf16); };
       }},
      {"adamw", adamw_case}};
  return all;
}

}  // namespace
}  // namespace lectern

int main(int argc, char** argv) {
  const std::string wanted = argc == 2 ? argv[1] : "";
  lectern::set_thread_count(1);
  for (const auto& [name, make] : lectern::cases()) {
    if (wanted == "--list") std::printf("%s\n", name.c_str());
    if (wanted != name) continue;
    const std::function<void()> run = make();
    run();
    lectern_counted(run);
    return 0;
  }
  if (wanted == "--list") return 0;
  std::fprintf(stderr, "check_ops: CASE must be one of `check_ops --list`, got \"%s\"\n",
               wanted.c_str());
  return 2;
}
