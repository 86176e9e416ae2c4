// The fused read, and read + write together, whose gradients are shared between the two.
#include "core/ops/stream_read.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/streams.h"
#include "core/io/safetensors.h"
#include "tests/ops/check_op.h"
#include "tests/ops/stream_reference.h"

#include <limits>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::reference_read;
using testing::stream_case;
using testing::StreamCase;
using testing::throws_with;

constexpr StreamConvention kReadConventions[] = {
    StreamConvention::paper, StreamConvention::megatron, StreamConvention::deepseek_v4};

/// Every mapping and convention that differ, for n streams.
std::vector<StreamReadArgs> all_args(std::int64_t n) {
  std::vector<StreamReadArgs> out;
  for (const StreamConvention convention : kReadConventions)
    out.push_back({.mapping = StreamMapping::mhc, .convention = convention});
  out.push_back({.mapping = StreamMapping::hc, .convention = StreamConvention::paper});
  out.push_back({.mapping = StreamMapping::head});
  if (n <= 4)
    out.push_back({.mapping = StreamMapping::exact, .convention = StreamConvention::megatron});
  return out;
}

std::string name(const StreamReadArgs& args, std::int64_t n) {
  return fmt::format("mapping {} convention {} n {}", static_cast<int>(args.mapping),
                     name_of(args.convention), n);
}

/// in = x, fn, base, scale -> the next streams around F = silu; the merge for head.
testing::Operation sub_layer(const StreamReadArgs& args) {
  return [=](const std::vector<Variable>& in) {
    const StreamVariables parameters{in[1], in[2], in[3]};
    const Streams x(in[0]);
    if (args.mapping == StreamMapping::head) return merge_streams(x, parameters);
    const StreamRead read = stream_read(x, parameters, args);
    return stream_write(x, read, silu(read.input)).graph;
  };
}

std::vector<Tensor> inputs_of(const StreamCase& in) {
  return {in.x, in.parameters.fn, in.parameters.base, in.parameters.scale};
}

void expect_equal(const StreamReadOutput& got, const StreamReadOutput& want, double bound,
                  const std::string& what) {
  EXPECT_TRUE(near(got.input, want.input, bound)) << what;
  EXPECT_TRUE(near(got.pre, want.pre, bound)) << what;
  if (!got.mix.defined()) return;
  EXPECT_TRUE(near(got.post, want.post, bound)) << what;
  EXPECT_TRUE(near(got.mix, want.mix, bound)) << what;
}

TEST(StreamRead, MatchesReference) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const StreamReadArgs& args : all_args(n))
      for (const std::int64_t tokens : {1, 7, 35})
        for (const std::int64_t width : {1, 5, 67, 300}) {
          const StreamCase wide = stream_case(args.mapping, tokens, n, width, 11);
          const StreamReadOutput want = reference_read(wide, args);
          expect_equal(stream_read(wide.x, wide.parameters, args), want, 1e-12, name(args, n));
          const StreamCase single = stream_case(args.mapping, tokens, n, width, 11, DType::f32);
          expect_equal(stream_read(single.x, single.parameters, args), reference_read(single, args),
                       1e-5, name(args, n));
        }
}

/// Switched-off mappings are constants; the others do not change.
TEST(StreamRead, MappingsSwitchedOff) {
  for (const StreamMapping mapping : {StreamMapping::mhc, StreamMapping::hc, StreamMapping::exact})
    for (int off = 0; off < 8; ++off) {
      const StreamReadArgs args{
          .mapping = mapping, .pre = (off & 1) == 0, .post = (off & 2) == 0, .res = (off & 4) == 0};
      const StreamCase in = stream_case(mapping, 5, 3, 9, 2);
      expect_equal(stream_read(in.x, in.parameters, args), reference_read(in, args), 1e-12,
                   fmt::format("off {}", off));
      EXPECT_TRUE(testing::gradient_holds(sub_layer(args), inputs_of(in))) << off;
    }
}

/// Finite differences through read and write, for every convention and n; one short block of tokens
/// and more than one, odd widths.
TEST(StreamRead, Gradients) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const StreamReadArgs& args : all_args(n)) {
      for (const auto& [tokens, width] : {std::pair{3, 5}, std::pair{11, 43}}) {
        const StreamCase in = stream_case(args.mapping, tokens, n, width, 5);
        EXPECT_TRUE(testing::gradient_holds(sub_layer(args), inputs_of(in))) << name(args, n);
      }
      const StreamCase single = stream_case(args.mapping, 37, n, 300, 6, DType::f32);
      EXPECT_TRUE(testing::single_matches_double(sub_layer(args), inputs_of(single), 2e-4))
          << name(args, n);
    }
}

/// Sums over tokens go through more than one chunk.
TEST(StreamRead, ThreadsDoNotMatter) {
  for (const StreamReadArgs& args : all_args(4))
    EXPECT_TRUE(testing::threads_do_not_matter(
        sub_layer(args), inputs_of(stream_case(args.mapping, 300, 4, 40, 7, DType::f32))))
        << name(args, 4);
}

TEST(StreamRead, MatchesFixture) {
  const auto file = SafetensorsFile::open(testing::fixture("mhc_A") / "mhc.safetensors");
  for (const StreamConvention convention : kReadConventions) {
    const StreamReadArgs args{.convention = convention};
    const StreamReadOutput out = stream_read(
        file.get("in.x"), {file.get("in.phi"), file.get("in.b"), file.get("in.alpha")}, args);
    const std::string prefix = std::string(name_of(convention)) + ".";
    EXPECT_TRUE(near(out.pre, file.get(prefix + "pre"), 1e-5));
    EXPECT_TRUE(near(out.post, file.get(prefix + "post"), 1e-5));
    EXPECT_TRUE(near(out.input, file.get(prefix + "layer_input"), 1e-5));
  }
}

/// n = 1: the streams are the plain residual, bit for bit, when the mappings are constants.
TEST(StreamRead, OneStreamIsThePlainResidual) {
  const Tensor x = random_tensor({9, 1, 77}, 1), y = random_tensor({9, 77}, 2);
  const Variable plain = add(Variable(x.view({9, 77})), Variable(y));
  const auto shapes = stream_parameter_shapes(StreamMapping::mhc, 1, 77);
  StreamVariables parameters{Variable(random_tensor(shapes.fn, 3)),
                             Variable(Tensor::zeros(shapes.base)),
                             Variable(Tensor::zeros(shapes.scale))};
  const auto expect_plain = [&](const StreamReadArgs& args) {
    const Streams streams((Variable(x)));
    const StreamRead read = stream_read(streams, parameters, args);
    EXPECT_TRUE(near(read.input.value(), x.view({9, 77}), 0));
    const Streams out = stream_write(streams, read, Variable(y));
    EXPECT_TRUE(near(mean_of_streams(out).value(), plain.value(), 0));
  };
  for (const StreamConvention convention : kReadConventions)
    expect_plain({.convention = convention, .pre = false, .post = false, .res = false});
  // Learned, with a gate that is 1 to the last bit: sigmoid(100), 2 sigmoid(0), Sinkhorn of one.
  parameters.base.value().data<float>()[0] = 100;
  expect_plain({.convention = StreamConvention::paper});
  expect_plain({.convention = StreamConvention::megatron});
}

/// A segment rebuilds the streams: the same bits as keeping them.
TEST(StreamRead, SegmentsChangeNothing) {
  const StreamCase in = stream_case(StreamMapping::mhc, 21, 4, 30, 9, DType::f32);
  const auto run = [&](int interval) {
    std::vector<Variable> leaves;
    for (const Tensor& tensor : inputs_of(in)) leaves.emplace_back(tensor, true);
    Streams x(leaves[0]);
    for (int layer = 0; layer < 5; ++layer) {
      if (interval > 0 && layer % interval == 0) x = x.begin_segment();
      const StreamRead read = stream_read(x, {leaves[1], leaves[2], leaves[3]}, {});
      x = stream_write(x, read, silu(read.input));
    }
    const Variable out = mean_of_streams(x);
    out.backward(random_tensor(out.shape(), 4));
    std::vector<Tensor> results{out.value()};
    for (const Variable& leaf : leaves) results.push_back(leaf.grad());
    return results;
  };
  const auto want = run(0);
  for (const int interval : {1, 2, 3, 5, 9}) {
    const auto got = run(interval);
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(near(got[i], want[i], 0)) << "interval " << interval << " result " << i;
  }
}

TEST(StreamRead, ExtremeValuesStayFinite) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const StreamReadArgs& args : all_args(n))
      for (const float logit : {1e4f, -1e4f, 0.0f, std::numeric_limits<float>::denorm_min()})
        for (const float size : {0.0f, 1e-30f, 1e-12f, 1.0f, 1e12f}) {
          StreamCase in = stream_case(args.mapping, 3, n, 6, 5, DType::f32);
          for (std::int64_t i = 0; i < in.x.numel(); ++i) in.x.data<float>()[i] *= size;
          float* base = in.parameters.base.data<float>();
          for (std::int64_t i = 0; i < in.parameters.base.numel(); ++i)
            base[i] = i % 3 == 0 ? -logit : logit;
          for (const Tensor& result : testing::output_and_gradients(
                   [&](const std::vector<Variable>& v) {
                     const StreamVariables parameters{v[1], v[2], v[3]};
                     const Streams x(v[0]);
                     if (args.mapping == StreamMapping::head) return merge_streams(x, parameters);
                     const StreamRead read = stream_read(x, parameters, args);
                     return stream_write(x, read, read.input).graph;
                   },
                   inputs_of(in))) {
            const Tensor values = result.contiguous();
            for (std::int64_t k = 0; k < values.numel(); ++k)
              ASSERT_TRUE(std::isfinite(values.data<float>()[k]))
                  << name(args, n) << " logit " << logit << " size " << size;
          }
        }
}

TEST(StreamRead, OnlyWhatIsNeeded) {
  const StreamCase in = stream_case(StreamMapping::mhc, 4, 2, 6, 1);
  const auto forward = stream_read(in.x, in.parameters, {});
  const Tensor grad = random_tensor({4, 6}, 2, DType::f64);
  const auto x_only = stream_read_backward(grad, {}, {}, in.x, in.parameters, forward, {},
                                           {.x = true, .parameters = false});
  EXPECT_TRUE(x_only.x.defined() && !x_only.fn.defined());
  const auto all = stream_read_backward(grad, {}, {}, in.x, in.parameters, forward, {});
  EXPECT_TRUE(near(x_only.x, all.x, 0));
  const auto fn_only = stream_read_backward(grad, {}, {}, in.x, in.parameters, forward, {},
                                            {.x = false, .parameters = true});
  EXPECT_TRUE(!fn_only.x.defined());
  EXPECT_TRUE(near(fn_only.fn, all.fn, 0));
}

TEST(StreamRead, Empty) {
  const StreamCase in = stream_case(StreamMapping::mhc, 0, 4, 6, 1);
  const auto results = testing::output_and_gradients(sub_layer({}), inputs_of(in));
  EXPECT_EQ(results[0].shape(), (Shape{0, 4, 6}));
  EXPECT_TRUE(near(results[2], Tensor::zeros({24, 24}, DType::f64), 0));
}

TEST(StreamRead, Errors) {
  const StreamCase in = stream_case(StreamMapping::mhc, 2, 4, 6, 1, DType::f32);
  const auto with = [&](StreamParameters parameters, StreamReadArgs args = {}) {
    stream_read(in.x, parameters, args);
  };
  EXPECT_TRUE(throws_with([&] { stream_read(random_tensor({3}, 1), in.parameters, {}); },
                          {"stream_read: x must be [..., n, C] with n from 1 to 8"}));
  EXPECT_TRUE(throws_with(
      [&] {
        stream_read(random_tensor({9, 3}, 1), in.parameters, {});
      },
      {"n from 1 to 8, got f32 [9, 3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        with({in.x, in.parameters.base, in.parameters.scale});
      },
      {"stream_read: fn must be [24, 24]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        with({in.parameters.fn, in.x, in.parameters.scale});
      },
      {"stream_read: base must be [24]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        with({in.parameters.fn, in.parameters.base, in.parameters.scale.to(DType::f64)});
      },
      {"stream_read: scale must be f32"}));
  EXPECT_TRUE(throws_with([&] { with(in.parameters, {.iterations = 0}); },
                          {"stream_read: iterations must be from 1 to 1000, got 0"}));
  EXPECT_TRUE(throws_with([] { stream_parameter_shapes(StreamMapping::exact, 5, 8); },
                          {"streams must be from 1 to 4 with exact H_res, got 5"}));
}

}  // namespace
}  // namespace lectern
