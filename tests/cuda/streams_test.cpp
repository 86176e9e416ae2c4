// Residual streams against their CPU twins: sinkhorn, stream_read, stream_write, stream_stack.
#include "autograd/ops/streams.h"

#include "autograd/ops/elementwise.h"
#include "core/ops/stream_stack.h"
#include "core/ops/stream_write.h"
#include "tests/cuda/check_cuda.h"
#include "tests/ops/stream_reference.h"

namespace lectern {
namespace {

using testing::Both;
using testing::both;
using testing::gpu;
using testing::is_equal;
using testing::matches;
using testing::random_both;
using testing::random_tensor;
using testing::stream_case;
using testing::StreamCase;
using testing::throws_with;

constexpr StreamConvention kConventions[] = {StreamConvention::paper, StreamConvention::megatron,
                                             StreamConvention::deepseek_v4};

void check_sinkhorn(const Tensor& logits, const SinkhornArgs& args) {
  SCOPED_TRACE(fmt::format("{} {} iterations {}", logits.shape(), name_of(args.convention),
                           args.iterations));
  const Both in = both(logits), grad = random_both(logits.shape(), 7);
  EXPECT_TRUE(matches(sinkhorn(in.cuda, args), sinkhorn(in.cpu, args), DType::f32, 8));
  EXPECT_TRUE(matches(sinkhorn_backward(grad.cuda, in.cuda, args),
                      sinkhorn_backward(grad.cpu, in.cpu, args), DType::f32, 32));
}

TEST(CudaSinkhorn, MatchesTheCpu) {
  for (const StreamConvention convention : kConventions)
    for (std::int64_t n = 1; n <= 8; ++n) {
      for (const std::int64_t count : {0, 1, 5, 130})  // 130: more than a block
        check_sinkhorn(random_tensor({count, n, n}, 3, DType::f32, 1.5),
                       {.convention = convention, .iterations = 20});
      check_sinkhorn(random_tensor({2, 3, n, n}, 4), {.convention = convention, .iterations = 1});
    }
}

/// So many iterations that only one thread of a block has room for its divisors.
TEST(CudaSinkhorn, AThousandIterations) {
  for (const StreamConvention convention : kConventions)
    check_sinkhorn(random_tensor({3, 8, 8}, 5), {.convention = convention, .iterations = 1000});
}

/// A column far below the others goes through logarithms, beside matrices that do not.
TEST(CudaSinkhorn, PaperThroughLogarithms) {
  Tensor logits = random_tensor({40, 4, 4}, 8);
  for (std::int64_t at = 0; at < logits.numel(); ++at)
    if (at / 16 % 3 == 1 && at % 4 == 1) logits.data<float>()[at] -= 120.0f;
  check_sinkhorn(logits, {.convention = StreamConvention::paper, .iterations = 5});
}

// ---- stream_read

/// Every mapping and convention that differ, for n streams.
std::vector<StreamReadArgs> all_args(std::int64_t n) {
  std::vector<StreamReadArgs> out;
  for (const StreamConvention convention : kConventions)
    out.push_back({.mapping = StreamMapping::mhc, .convention = convention});
  out.push_back({.mapping = StreamMapping::hc, .convention = StreamConvention::paper});
  out.push_back({.mapping = StreamMapping::head});
  if (n <= 4)
    out.push_back({.mapping = StreamMapping::exact, .convention = StreamConvention::megatron});
  return out;
}

StreamCase moved(const StreamCase& in) {
  return {
      in.x.to(gpu()),
      {in.parameters.fn.to(gpu()), in.parameters.base.to(gpu()), in.parameters.scale.to(gpu())}};
}

void check_backward(const StreamCase& here, const StreamCase& there, const StreamReadArgs& args,
                    const StreamReadOutput& want, const StreamReadOutput& got, bool with_write,
                    StreamReadNeeds needs) {
  const Both input = random_both(want.input.shape(), 21);
  const Both mixed = with_write ? random_both(here.x.shape(), 22) : Both{};
  const Both post = with_write ? random_both(want.pre.shape(), 23) : Both{};
  const auto a = stream_read_backward(input.cuda, mixed.cuda, post.cuda, there.x, there.parameters,
                                      got, args, needs);
  const auto b = stream_read_backward(input.cpu, mixed.cpu, post.cpu, here.x, here.parameters, want,
                                      args, needs);
  EXPECT_TRUE(matches(a.x, b.x, DType::f32, 64));
  EXPECT_TRUE(matches(a.fn, b.fn, DType::f32, 64));
  EXPECT_TRUE(matches(a.base, b.base, DType::f32, 64));
  EXPECT_TRUE(matches(a.scale, b.scale, DType::f32, 64));
}

void check_read(const StreamCase& here, const StreamReadArgs& args) {
  SCOPED_TRACE(fmt::format("{} mapping {} {}", here.x.shape(), static_cast<int>(args.mapping),
                           name_of(args.convention)));
  const StreamCase there = moved(here);
  const StreamReadOutput want = stream_read(here.x, here.parameters, args);
  const StreamReadOutput got = stream_read(there.x, there.parameters, args);
  for (const auto& part :
       {&StreamReadOutput::input, &StreamReadOutput::pre, &StreamReadOutput::post,
        &StreamReadOutput::mix, &StreamReadOutput::products, &StreamReadOutput::squares})
    EXPECT_TRUE(matches(got.*part, want.*part, DType::f32, 32));
  check_backward(here, there, args, want, got, args.mapping != StreamMapping::head, {});
  check_backward(here, there, args, want, got, false, {.x = true, .parameters = false});
  check_backward(here, there, args, want, got, false, {.x = false, .parameters = true});
}

// Tiles have 16 tokens, rows of the projection go 6 at a time, a warp 32 or 128 columns.
TEST(CudaStreamRead, MatchesTheCpu) {
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{0, 8},  {1, 1},   {3, 5},
                                                          {16, 4}, {35, 12}, {17, 132}};
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const StreamReadArgs& args : all_args(n))
      for (const auto& [tokens, width] : shapes)
        check_read(stream_case(args.mapping, tokens, n, width, 11, DType::f32), args);
}

TEST(CudaStreamRead, MappingsSwitchedOff) {
  for (const StreamMapping mapping : {StreamMapping::mhc, StreamMapping::hc, StreamMapping::exact})
    for (int off = 0; off < 8; ++off)
      check_read(stream_case(mapping, 5, 3, 9, 2, DType::f32), {.mapping = mapping,
                                                                .pre = (off & 1) == 0,
                                                                .post = (off & 2) == 0,
                                                                .res = (off & 4) == 0});
}

TEST(CudaStreamRead, AThousandIterations) {
  check_read(stream_case(StreamMapping::mhc, 3, 8, 4, 6, DType::f32), {.iterations = 1000});
}

/// A view that starts in the middle of 16 bytes is read element by element.
TEST(CudaStreamRead, UnalignedViews) {
  const StreamCase here = stream_case(StreamMapping::mhc, 6, 4, 8, 3, DType::f32);
  const StreamCase there = moved(here);
  const Tensor room = Tensor::empty({here.x.numel() + 1}, DType::f32, gpu());
  const Tensor view = room.slice(0, 1, room.numel()).view(here.x.shape());
  view.copy_from(there.x);
  EXPECT_TRUE(matches(stream_read(view, there.parameters, {}).input,
                      stream_read(here.x, here.parameters, {}).input, DType::f32, 32));
}

TEST(CudaStreamRead, TokensOfZerosStayFinite) {
  for (const StreamReadArgs& args : all_args(4)) {
    StreamCase here = stream_case(args.mapping, 3, 4, 8, 5, DType::f32);
    here.x.fill(0);
    check_read(here, args);
  }
}

TEST(CudaStreamRead, TheSameBitsInEveryRun) {
  const StreamCase in = moved(stream_case(StreamMapping::mhc, 40, 4, 16, 9, DType::f32));
  const Tensor grad = random_tensor({40, 16}, 1).to(gpu());
  const auto run = [&] {
    const auto out = stream_read(in.x, in.parameters, {});
    return stream_read_backward(grad, {}, {}, in.x, in.parameters, out, {});
  };
  const auto a = run(), b = run();
  for (const auto& part : {&StreamReadGradients::x, &StreamReadGradients::fn,
                           &StreamReadGradients::base, &StreamReadGradients::scale})
    EXPECT_TRUE(is_equal(a.*part, b.*part));
}

// ---- stream_write, stream_stack

TEST(CudaStreamWrite, MatchesTheCpu) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const auto& [tokens, width] : {std::pair<std::int64_t, std::int64_t>{0, 8},
                                        {1, 1},
                                        {3, 5},
                                        {5, 64},
                                        {2, 1284}}) {  // 1284: over a block's threads
      SCOPED_TRACE(fmt::format("n {} tokens {} width {}", n, tokens, width));
      const Both x = random_both({tokens, n, width}, 1), mix = random_both({tokens, n, n}, 2);
      const Both post = random_both({tokens, n}, 3), y = random_both({tokens, width}, 4);
      EXPECT_TRUE(matches(stream_write(x.cuda, mix.cuda, post.cuda, y.cuda),
                          stream_write(x.cpu, mix.cpu, post.cpu, y.cpu), DType::f32, 9));
      const auto got = stream_write_backward(x.cuda, post.cuda, y.cuda);
      const auto want = stream_write_backward(x.cpu, post.cpu, y.cpu);
      EXPECT_TRUE(matches(got.y, want.y, DType::f32, 8));
      EXPECT_TRUE(matches(got.post, want.post, DType::f32, 64));
    }
}

TEST(CudaStreamStack, MatchesTheCpu) {
  for (const Shape& shape : {Shape{0, 4}, Shape{1, 1}, Shape{2, 3, 5}, Shape{70, 64}})
    for (const std::int64_t n : {1, 3, 4, 8}) {
      const Both x = random_both(shape, 1);
      const Tensor wide = stream_expand(x.cuda, n, 0.3), want = stream_expand(x.cpu, n, 0.3);
      EXPECT_TRUE(matches(wide, want, DType::f32));
      EXPECT_TRUE(matches(stream_sum(wide, 0.7), stream_sum(want, 0.7), DType::f32, 8));
    }
}

/// Streams rebuilt in backward, a sub-layer whose input needs no gradient, and the merge.
TEST(CudaStreams, ALayerStackFollowsTheCpu) {
  const StreamCase in = stream_case(StreamMapping::mhc, 9, 4, 12, 9, DType::f32);
  const StreamCase head = stream_case(StreamMapping::head, 9, 4, 12, 5, DType::f32);
  const auto run = [&](Device device) {
    std::vector<Variable> leaves;
    for (const Tensor& tensor : {in.x, in.parameters.fn, in.parameters.base, in.parameters.scale,
                                 head.parameters.fn, head.parameters.base, head.parameters.scale})
      leaves.emplace_back(tensor.to(device), true);
    Streams x(leaves[0]);
    const Variable constant(random_tensor({9, 12}, 6).to(device));
    for (int layer = 0; layer < 4; ++layer) {
      if (layer % 2 == 0) x = x.begin_segment();
      const StreamRead read = stream_read(x, {leaves[1], leaves[2], leaves[3]}, {});
      x = stream_write(x, read, layer == 3 ? constant : silu(read.input));
    }
    const Variable out = merge_streams(x, {leaves[4], leaves[5], leaves[6]});
    out.backward(random_tensor({9, 12}, 4).to(device));
    std::vector<Tensor> results{out.value()};
    for (const Variable& leaf : leaves) results.push_back(leaf.grad());
    return results;
  };
  const auto got = run(gpu()), want = run(Device{});
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(matches(got[i], want[i], DType::f32, 256)) << "result " << i;
}

TEST(CudaStreams, Errors) {
  const StreamCase here = stream_case(StreamMapping::mhc, 2, 4, 6, 1, DType::f32);
  const StreamCase there = moved(here);
  EXPECT_TRUE(throws_with([&] { stream_read(there.x, here.parameters, {}); },
                          {"stream_read: fn must be on cuda:0"}));
  const Both mix = random_both({2, 4, 4}, 1), post = random_both({2, 4}, 2);
  const Both y = random_both({2, 6}, 3);
  EXPECT_TRUE(throws_with([&] { stream_write(there.x, mix.cpu, post.cuda, y.cuda); },
                          {"stream_write: mix must be on cuda:0"}));
  EXPECT_TRUE(throws_with([&] { sinkhorn_backward(mix.cpu, mix.cuda, {}); },
                          {"sinkhorn: grad_output must be on cuda:0"}));
  EXPECT_TRUE(throws_with([&] { sinkhorn(mix.cuda.to(DType::bf16), {}); },
                          {"sinkhorn: logits must be f32, got bf16"}));
  EXPECT_TRUE(throws_with([&] { stream_expand(y.cuda.to(DType::bf16), 2); },
                          {"stream_expand: x must be f32, got bf16"}));
}

}  // namespace
}  // namespace lectern
