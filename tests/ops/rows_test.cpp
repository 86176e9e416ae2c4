#include "autograd/ops/rows.h"

#include "core/ops/linear.h"
#include "core/ops/rows.h"
#include "core/random.h"
#include "tests/ops/check_op.h"

#include <sys/mman.h>

#include <memory>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Tensor make_index(const std::vector<std::int32_t>& pairs) {
  return Tensor::from<std::int32_t>(pairs, {static_cast<std::int64_t>(pairs.size() / 2), 2});
}

/// `n` random (source, row) pairs; few rows, so that most repeat.
Tensor random_index(const std::vector<Tensor>& sources, std::int64_t n) {
  Random random(5, "index");
  std::vector<std::int32_t> pairs;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto s = random.below(sources.size());
    pairs.push_back(static_cast<std::int32_t>(s));
    pairs.push_back(
        static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(sources[s].dim(0)))));
  }
  return make_index(pairs);
}

std::vector<Tensor> make_sources(std::int64_t columns) {
  return {random_tensor({9, columns}, 1), random_tensor({1, columns}, 2),
          random_tensor({4, columns}, 3)};
}

TEST(Rows, CopiesTheRowsNamed) {
  for (const std::int64_t columns : {1, 3, 64, 1281}) {
    const auto sources = make_sources(columns);
    const Tensor index = random_index(sources, 101), out = select_rows(sources, index);
    ASSERT_EQ(out.shape(), (Shape{101, columns}));
    for (std::int64_t i = 0; i < 101; ++i) {
      const auto* pair = index.data<std::int32_t>() + 2 * i;
      for (std::int64_t c = 0; c < columns; ++c)
        ASSERT_EQ(out.data<float>()[i * columns + c],
                  sources[static_cast<std::size_t>(pair[0])].data<float>()[pair[1] * columns + c]);
    }
  }
}

TEST(Rows, GradientAddsUpRepeatedRows) {
  const auto sources = make_sources(70);
  const Tensor index = random_index(sources, 300), grad = random_tensor({300, 70}, 4);
  for (std::int32_t s = 0; s < 3; ++s) {
    const std::int64_t rows = sources[static_cast<std::size_t>(s)].dim(0);
    const Tensor want = Tensor::zeros({rows, 70});
    for (std::int64_t i = 0; i < 300; ++i) {
      const auto* pair = index.data<std::int32_t>() + 2 * i;
      for (std::int64_t c = 0; pair[0] == s && c < 70; ++c)
        want.data<float>()[pair[1] * 70 + c] += grad.data<float>()[i * 70 + c];
    }
    EXPECT_TRUE(near(select_rows_backward(grad, index, s, rows), want, 0));
  }
}

TEST(Rows, UnusedRowsGetZero) {
  // Enough rows that stale memory of the allocator would show.
  Tensor::full({1000, 8}, 7.0);
  const Tensor grad = select_rows_backward(Tensor::full({1, 8}, 1), make_index({0, 500}), 0, 1000);
  double sum = 0;
  for (std::int64_t i = 0; i < grad.numel(); ++i) sum += grad.data<float>()[i];
  EXPECT_EQ(sum, 8.0);
  EXPECT_EQ(grad.data<float>()[500 * 8], 1.0f);
}

TEST(Rows, Gradients) {
  const auto sources = make_sources(5);
  const Tensor index = random_index(sources, 40);
  const auto f = [&](const std::vector<Variable>& in) { return select_rows(in, index); };
  EXPECT_TRUE(testing::gradient_holds(f, sources));
  EXPECT_TRUE(testing::single_matches_double(f, sources, 1e-6));
  const auto wide = make_sources(200);
  EXPECT_TRUE(testing::threads_do_not_matter(
      [&](const std::vector<Variable>& in) { return select_rows(in, index); }, wide));
}

TEST(Rows, FrozenSourcesGetNoGradient) {
  const auto values = make_sources(5);
  const std::vector<Variable> sources{Variable(values[0]), Variable(values[1], true),
                                      Variable(values[2])};
  select_rows(sources, make_index({0, 3, 1, 0})).backward(Tensor::full({2, 5}, 1));
  EXPECT_FALSE(sources[0].grad().defined());
  EXPECT_TRUE(near(sources[1].grad(), Tensor::full({1, 5}, 1), 0));
}

TEST(Embedding, LooksUpIdsOfAnyShape) {
  const Tensor table = random_tensor({11, 6}, 1);
  const Tensor ids = Tensor::from<std::int64_t>({0, 10, 3, 3, 7, 0}, {2, 3});
  for (const DType dtype : {DType::i32, DType::i64}) {
    const Variable out = embedding(Variable(table), ids.to(dtype));
    ASSERT_EQ(out.shape(), (Shape{2, 3, 6}));
    for (std::int64_t i = 0; i < 6; ++i)
      for (std::int64_t c = 0; c < 6; ++c)
        ASSERT_EQ(out.value().data<float>()[i * 6 + c],
                  table.data<float>()[ids.data<std::int64_t>()[i] * 6 + c]);
  }
  const auto f = [&](const std::vector<Variable>& in) { return embedding(in[0], ids); };
  EXPECT_TRUE(testing::gradient_holds(f, {table}));
}

TEST(Rows, Empty) {
  const auto sources = make_sources(5);
  EXPECT_EQ(select_rows(sources, Tensor::empty({0, 2}, DType::i32)).shape(), (Shape{0, 5}));
  EXPECT_TRUE(
      near(select_rows_backward(Tensor::empty({0, 5}), Tensor::empty({0, 2}, DType::i32), 0, 3),
           Tensor::zeros({3, 5}), 0));
  // An empty source is fine as long as nothing points into it.
  EXPECT_EQ(select_rows({sources[0], Tensor::empty({0, 5})}, make_index({0, 1})).shape(),
            (Shape{1, 5}));
  EXPECT_EQ(embedding(Variable(sources[0]), Tensor::empty({0}, DType::i64)).shape(), (Shape{0, 5}));
}

TEST(Rows, StridedInputsAreTaken) {
  const Tensor source = random_tensor({5, 8}, 1).transpose(0, 1);
  const Tensor index = Tensor::from<std::int32_t>({0, 0, 0, 7, 1, 2}, {2, 3}).transpose(0, 1);
  EXPECT_TRUE(near(select_rows({source, source}, index),
                   select_rows({source.clone(), source.clone()}, index.clone()), 0));
}

// Over 60 lines: a case an error.
TEST(Rows, Errors) {
  const auto sources = make_sources(5);
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(std::vector<Tensor>{}, make_index({0, 0}));
      },
      {"select_rows: sources must have 1 or more, got 0"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, make_index({0, 0, 3, 0}));
      },
      {"select_rows: index[1] must name a source in 0..2, got 3"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, make_index({-1, 0}));
      },
      {"index[0] must name a source in 0..2, got -1"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, make_index({0, 0, 2, 1, 2, 4}));
      },
      {"index[2] must name a row of source 2 with 4 rows, got 4"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, make_index({0, -2}));
      },
      {"index[0] must name a row of source 0 with 9 rows, got -2"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, Tensor::zeros({3, 2}, DType::i64));
      },
      {"select_rows: index must be i32, got i64"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows(sources, Tensor::zeros({3, 3}, DType::i32));
      },
      {"select_rows: index must be [3, 2]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows({sources[0], Tensor::empty({2, 4})}, make_index({0, 0}));
      },
      {"select_rows: source 1 must be [2, 5], got f32 [2, 4] cpu"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows({sources[0], sources[1].to(DType::f64)}, make_index({0, 0}));
      },
      {"select_rows: source 1 must be f32, got f64"}));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows_backward(Tensor::empty({1, 5}), make_index({0, 9}), 0, 9);
      },
      {"index[0] must name a row of source 0 with 9 rows, got 9"}));
  const Variable table(sources[0]);
  EXPECT_TRUE(throws_with(
      [&] {
        embedding(table, Tensor::from<std::int64_t>({1, 9}, {2}));
      },
      {"embedding: ids[1] must be in 0..8, got 9"}));
  EXPECT_TRUE(throws_with([&] { embedding(table, Tensor::zeros({2})); },
                          {"embedding: ids must be i32 or i64, got f32"}));
  EXPECT_TRUE(throws_with([&] { embedding(Variable(Tensor::zeros({2})), Tensor::zeros({2})); },
                          {"embedding: table must have 2 dimensions"}));
}

TEST(Rows, BFloat16TablesAreWidened) {
  const Tensor table = random_tensor({5, 3}, 1).to(DType::bf16), other = random_tensor({2, 3}, 2);
  const Tensor wide = table.to(DType::f32);
  const Tensor index = make_index({0, 4, 1, 1, 0, 0});
  EXPECT_TRUE(near(select_rows({table, other}, index), select_rows({wide, other}, index), 0));
  EXPECT_TRUE(near(select_rows({other, table}, make_index({1, 2})),
                   select_rows({other, wide}, make_index({1, 2})), 0));
  const Tensor alone = select_rows({table}, make_index({0, 3}));
  EXPECT_EQ(alone.dtype(), DType::f32);
  EXPECT_TRUE(near(alone, wide.slice(0, 3, 4).contiguous(), 0));
  EXPECT_TRUE(throws_with(
      [&] {
        select_rows({table, other.to(DType::f64)}, index);
      },
      {"source 0 must be f64, got bf16"}));
}

/// Only the pages of the rows that are read exist.
TEST(Rows, TablesOfMoreThanTwoBillionElements) {
  constexpr std::int64_t kRows = 3000000, kColumns = 1024;  // 3.07e9 elements, 6 GB
  constexpr std::size_t kBytes = std::size_t{kRows} * kColumns * sizeof(BFloat16);
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const std::shared_ptr<const void> owner(
      memory, [](const void* at) { ::munmap(const_cast<void*>(at), kBytes); });
  const Tensor table = Tensor::wrap(memory, {kRows, kColumns}, DType::bf16, owner);
  table.slice(0, kRows - 1, kRows).fill(2.0);
  const Tensor row = select_rows({table}, make_index({0, kRows - 1, 0, 1}));
  EXPECT_TRUE(near(row.slice(0, 0, 1), Tensor::full({1, kColumns}, 2.0), 0));
  EXPECT_TRUE(near(row.slice(0, 1, 2), Tensor::zeros({1, kColumns}), 0));
  const Tensor y = linear(row.slice(0, 0, 1), table.slice(0, kRows - 3, kRows));
  EXPECT_EQ(y.data<float>()[2], 4.0F * kColumns);
  EXPECT_EQ(y.data<float>()[1], 0.0F);
  EXPECT_TRUE(
      throws_with([&] { embedding_index(Tensor::zeros({1}, DType::i64), std::int64_t{1} << 31); },
                  {"embedding: rows must be at most 2147483647, got 2147483648"}));
}

}  // namespace
}  // namespace lectern
