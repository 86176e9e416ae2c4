#include "autograd/ops/layout.h"

#include "core/ops/layout.h"
#include "tests/ops/check_op.h"

#include <algorithm>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// Element at `position` through the strides, the slow way.
float at(const Tensor& x, const std::vector<std::int64_t>& position) {
  std::int64_t offset = 0;
  for (int i = 0; i < x.ndim(); ++i) offset += position[static_cast<std::size_t>(i)] * x.stride(i);
  return x.data<float>()[offset];
}

/// Calls f(position) for every position of a shape.
void for_each(const Shape& shape, const std::function<void(std::vector<std::int64_t>&)>& f) {
  std::vector<std::int64_t> position(static_cast<std::size_t>(shape.ndim()));
  for (std::int64_t flat = 0; flat < shape.numel(); ++flat) {
    std::int64_t rest = flat;
    for (int i = shape.ndim() - 1; i >= 0; --i) {
      position[static_cast<std::size_t>(i)] = rest % shape[i];
      rest /= shape[i];
    }
    f(position);
  }
}

void expect_permuted(const Tensor& x, const std::vector<int>& dims) {
  const Tensor out = permute(x, dims);
  ASSERT_TRUE(out.is_contiguous());
  for_each(out.shape(), [&](std::vector<std::int64_t>& position) {
    std::vector<std::int64_t> source(position.size());
    for (std::size_t i = 0; i < dims.size(); ++i)
      source[static_cast<std::size_t>(dims[i])] = position[i];
    ASSERT_EQ(at(out, position), at(x, source));
  });
}

TEST(Layout, PermuteInEveryOrder) {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 17, 1, 3}, Shape{33, 2, 18, 1}}) {
    const Tensor x = random_tensor(shape, 1);
    std::vector<int> dims{0, 1, 2, 3};
    do expect_permuted(x, dims);
    while (std::next_permutation(dims.begin(), dims.end()));
  }
  expect_permuted(random_tensor({130, 67}, 1), {1, 0});
  expect_permuted(random_tensor({7, 5, 3, 2, 8}, 1), {2, 0, 3, 1, 4});
  expect_permuted(random_tensor({4, 6}, 1).transpose(0, 1), {1, 0});
  expect_permuted(random_tensor({}, 1), {});
  expect_permuted(random_tensor({1, 1}, 1), {1, 0});
}

TEST(Layout, PermuteMovesEveryDtype) {
  const Tensor x = random_tensor({19, 21}, 1, DType::f32, 10.0);
  const std::vector<int> dims{1, 0};
  for (const DType dtype : {DType::f64, DType::bf16, DType::i64, DType::i32, DType::f32}) {
    const Tensor typed = x.to(dtype);
    EXPECT_TRUE(near(permute(typed, dims), typed.transpose(0, 1), 0)) << name_of(dtype);
  }
  const Tensor bytes = Tensor::from<std::uint8_t>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_TRUE(
      near(permute(bytes, dims), Tensor::from<std::uint8_t>({1, 4, 2, 5, 3, 6}, {3, 2}), 0));
}

TEST(Layout, SliceAndItsTranspose) {
  const Tensor x = random_tensor({4, 5, 6}, 1);
  for (int dim = 0; dim < 3; ++dim) {
    const Tensor out = slice(x, dim, 1, 3), view = x.slice(dim, 1, 3);
    EXPECT_TRUE(out.is_contiguous());
    EXPECT_TRUE(near(out, view, 0));
    EXPECT_TRUE(near(slice(x, dim - 3, 1, 3), view, 0));
    const Tensor padded = pad_slice(out, x.shape(), dim, 1), want = Tensor::zeros(x.shape());
    want.slice(dim, 1, 3).copy_from(view);
    EXPECT_TRUE(near(padded, want, 0));
  }
  EXPECT_EQ(slice(x, 0, 1, 3).raw(), x.slice(0, 1, 3).raw()) << "leading rows need no copy";
  EXPECT_TRUE(near(slice(x.transpose(0, 2), 1, 2, 5), x.transpose(0, 2).slice(1, 2, 5), 0));
}

TEST(Layout, Concat) {
  for (int dim = 0; dim < 3; ++dim) {
    std::vector<Tensor> parts;
    Shape shape{3, 4, 5};
    std::int64_t total = 0;
    for (const std::int64_t size : {2, 0, 1, 6}) {
      shape[dim] = size;
      parts.push_back(random_tensor(shape, static_cast<std::uint64_t>(size)));
      total += size;
    }
    const Tensor out = concat(parts, dim);
    EXPECT_EQ(out.dim(dim), total);
    EXPECT_TRUE(near(concat(parts, dim - 3), out, 0));
    std::int64_t begin = 0;
    for (const Tensor& part : parts) {
      EXPECT_TRUE(near(out.slice(dim, begin, begin + part.dim(dim)), part, 0));
      begin += part.dim(dim);
    }
  }
  const Tensor x = random_tensor({4, 3}, 1), t = x.transpose(0, 1);
  EXPECT_TRUE(near(concat({t, t}, 1).slice(1, 4, 8), t, 0));
}

TEST(Layout, RepeatLeading) {
  const Tensor x = random_tensor({3, 5}, 1), out = repeat_leading(x, 4);
  EXPECT_EQ(out.shape(), (Shape{4, 3, 5}));
  for (std::int64_t i = 0; i < 4; ++i) EXPECT_TRUE(near(out.slice(0, i, i + 1).view({3, 5}), x, 0));
  EXPECT_EQ(repeat_leading(Tensor::full({}, 2), 3).shape(), (Shape{3}));
}

TEST(Layout, Gradients) {
  const Tensor x = random_tensor({3, 4, 5}, 1), y = random_tensor({3, 2, 5}, 2);
  using Inputs = std::vector<Variable>;
  const std::vector<testing::Operation> operations{
      [](const Inputs& in) {
        return view(in[0], {5, -1});
      },
      [](const Inputs& in) { return slice(in[0], 1, 1, 3); },
      [](const Inputs& in) { return slice(in[0], 0, 2, 3); },
      [](const Inputs& in) { return slice(in[0], -1, 0, 2); },
      [](const Inputs& in) {
        return concat({in[0], in[1], in[0]}, 1);
      },
      [](const Inputs& in) {
        return concat({in[1], in[0]}, -2);
      },
      [](const Inputs& in) { return repeat_leading(in[0], 3); },
      [](const Inputs& in) {
        return permute(in[0], {2, 0, 1});
      },
      // A view of a permuted copy, used twice: gradients of shared storage must not mix.
      [](const Inputs& in) {
        const Variable flat = view(permute(in[0], {1, 0, 2}), {60});
        return concat({flat, flat}, 0);
      }};
  for (std::size_t i = 0; i < operations.size(); ++i) {
    EXPECT_TRUE(testing::gradient_holds(operations[i], {x, y})) << "operation " << i;
  }
}

TEST(Layout, RepeatGradientDoesNotDependOnThreads) {
  EXPECT_TRUE(testing::threads_do_not_matter(
      [](const std::vector<Variable>& in) { return repeat_leading(in[0], 100); },
      {random_tensor({33, 7}, 1)}));
}

TEST(Layout, Empty) {
  const Tensor none = Tensor::empty({0, 3});
  const std::vector<int> swap{1, 0};
  EXPECT_EQ(permute(none, swap).shape(), (Shape{3, 0}));
  EXPECT_EQ(slice(none, 1, 1, 2).shape(), (Shape{0, 1}));
  EXPECT_EQ(slice(random_tensor({2, 3}, 1), 1, 2, 2).shape(), (Shape{2, 0}));
  EXPECT_EQ(concat({none, none}, 0).shape(), (Shape{0, 3}));
  EXPECT_EQ(repeat_leading(none, 2).shape(), (Shape{2, 0, 3}));
  EXPECT_EQ(repeat_leading(random_tensor({3}, 1), 0).shape(), (Shape{0, 3}));
  EXPECT_TRUE(near(pad_slice(Tensor::empty({2, 0}), {2, 3}, 1, 3), Tensor::zeros({2, 3}), 0));
}

TEST(Layout, Errors) {
  const Tensor x = random_tensor({2, 3}, 1);
  EXPECT_TRUE(throws_with([&] { slice(x, 2, 0, 1); },
                          {"slice: dim must be a dimension of f32 [2, 3] cpu, got 2"}));
  EXPECT_TRUE(throws_with([&] { slice(x, 1, 1, 4); }, {"slice: 1..4 of dimension 1 is out of"}));
  EXPECT_TRUE(throws_with([&] { slice(x, 1, 2, 1); }, {"slice: 2..1"}));
  EXPECT_TRUE(throws_with(
      [&] {
        pad_slice(x, {2, 4}, 1, 2);
      },
      {"pad_slice: shape must hold x at 2 of dimension 1, got [2, 4]"}));
  EXPECT_TRUE(throws_with([&] { pad_slice(x, {3, 4}, 1, 0); }, {"pad_slice: shape must hold x"}));
  EXPECT_TRUE(throws_with([] { concat(std::vector<Tensor>{}, 0); },
                          {"concat: tensors must be 1 or more, got 0"}));
  EXPECT_TRUE(throws_with(
      [&] {
        concat({x, Tensor::empty({2, 4})}, 0);
      },
      {"concat: tensor 1 must be [2, 3], got f32 [2, 4] cpu"}));
  EXPECT_TRUE(throws_with(
      [&] {
        concat({x, x.to(DType::f64)}, 0);
      },
      {"concat: tensor 1 must be f32, got f64"}));
  EXPECT_TRUE(throws_with(
      [&] {
        concat({x, Tensor::empty({3})}, 0);
      },
      {"concat: tensor 1 must have 2 dimensions"}));
  EXPECT_TRUE(
      throws_with([&] { repeat_leading(x, -1); }, {"repeat_leading: n must be 0 or more, got -1"}));
  EXPECT_TRUE(throws_with(
      [&] {
        repeat_leading(Tensor::empty({1, 1, 1, 1, 1, 1, 1, 1}), 2);
      },
      {"Shape: at most 8 dimensions"}));
  for (const std::vector<int>& dims : {std::vector<int>{0}, {0, 0}, {0, 2}, {-1, 0}, {0, 1, 2}})
    EXPECT_TRUE(throws_with([&] { permute(x, dims); },
                            {"permute: dims must be a permutation of the dimensions of"}));
  EXPECT_TRUE(throws_with([&] { view(Variable(x), {4}); }, {"view: [4] has not the 6 elements"}));
}

}  // namespace
}  // namespace lectern
