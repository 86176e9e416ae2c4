// Gradients and AdamW over ranks against one rank that does all the work itself.
#include "autograd/ops/elementwise.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/reduce.h"
#include "distributed/gradient_buckets.h"
#include "distributed/groups.h"
#include "distributed/parallel_adamw.h"
#include "tests/distributed/ranks.h"

#include <cmath>
#include <limits>
#include <map>

namespace lectern {
namespace {

using testing::random_tensor;
using testing::ranks;
using testing::same_bits;

/// A chain of small layers, one of them used twice; "idle" is used by rank 1 only, "never" by none.
struct Network {
  NamedParameters parameters;

  Network() {
    add("first.weight", {24, 10});
    add("first.bias", {24});
    add("shared.weight", {24, 24});
    add("idle", {7, 3});
    add("never", {5});
    add("last.weight", {33, 24});
    add("last.bias", {33});
  }
  void add(const std::string& name, const Shape& shape) {
    const auto seed = static_cast<std::uint64_t>(parameters.size() + 1);
    parameters.emplace_back(name, Variable(random_tensor(shape, seed, DType::f32, 0.3), true));
  }
  const Variable& at(const std::string& name) const {
    for (const auto& [known, variable] : parameters)
      if (known == name) return variable;
    fail<Error>("no parameter " + name);
  }

  /// Loss of the data that belongs to `rank`.
  Variable loss(int rank, std::uint64_t step) const {
    const auto seed = step * 64 + static_cast<std::uint64_t>(rank) + 1000;
    const Variable x(random_tensor({9, 10}, seed));
    Variable h = gelu(linear(x, at("first.weight"), at("first.bias")));
    h = linear(gelu(linear(h, at("shared.weight"))), at("shared.weight"));
    const Variable y = linear(h, at("last.weight"), at("last.bias"));
    Variable out = mean(multiply(y, y));
    if (rank == 1) out = add_to(out, at("idle"));
    return out;
  }
  static Variable add_to(const Variable& loss, const Variable& other) {
    return lectern::add(loss, sum(multiply(other, other)));
  }

  void clear() {
    for (auto& [name, variable] : parameters) variable.clear_grad();
  }
};

/// Gradients of every rank's loss, added in the order of ranks; none where no rank has one.
std::map<std::string, Tensor> summed_gradients(std::uint64_t step, const Network& network) {
  std::map<std::string, Tensor> sums;
  for (int r = 0; r < ranks().size(); ++r) {
    Network alone;
    for (std::size_t i = 0; i < alone.parameters.size(); ++i)
      alone.parameters[i].second.value().copy_from(network.parameters[i].second.value());
    alone.loss(r, step).backward();
    for (const auto& [name, variable] : alone.parameters) {
      if (!variable.grad().defined()) continue;
      auto [at, is_new] = sums.try_emplace(name, Tensor::zeros(variable.shape()));
      // A rank without a gradient adds zeros, and 0 + x is x.
      for (std::int64_t i = 0; i < variable.value().numel(); ++i)
        at->second.data<float>()[i] += variable.grad().contiguous().data<float>()[i];
    }
  }
  return sums;
}

std::shared_ptr<Communicator> all_ranks() { return ranks().split(0, ranks().rank()); }

TEST(GradientBuckets, WholeSumsAreThoseOfOneRank) {
  const auto group = all_ranks();
  for (const std::int64_t bytes : {std::int64_t{4}, std::int64_t{1000}, std::int64_t{1} << 20}) {
    Network network;
    GradientBuckets buckets(network.parameters, group, bytes, GradientBuckets::Result::whole);
    EXPECT_EQ(buckets.bucket_count() == 1, bytes == 1 << 20);
    for (std::uint64_t step = 0; step < 3; ++step) {
      network.clear();
      {
        const ObserveBackward sending(&buckets);
        network.loss(ranks().rank(), step).backward();
      }
      buckets.reduce();
      const auto want = summed_gradients(step, network);
      for (const auto& [name, variable] : network.parameters) {
        ASSERT_EQ(variable.grad().defined(), want.contains(name)) << name;
        if (!want.contains(name)) continue;
        EXPECT_TRUE(same_bits(variable.grad(), want.at(name))) << name;
      }
    }
  }
}

TEST(GradientBuckets, OwnPartsMakeUpTheSums) {
  const auto group = all_ranks();
  for (const std::int64_t bytes : {std::int64_t{4}, std::int64_t{2500}, std::int64_t{1} << 20}) {
    Network network;
    GradientBuckets buckets(network.parameters, group, bytes, GradientBuckets::Result::own_part);
    for (std::uint64_t step = 0; step < 2; ++step) {
      network.clear();
      network.loss(ranks().rank(), step).backward();  // nobody listens: reduce() takes all
      buckets.reduce();
      const auto want = summed_gradients(step, network);
      std::map<std::size_t, std::int64_t> covered;
      for (const ParameterPiece& piece : buckets.own()) {
        const std::string& name = network.parameters[piece.parameter].first;
        covered[piece.parameter] += piece.end - piece.begin;
        EXPECT_EQ(buckets.has_gradient(piece.parameter), want.contains(name));
        if (!want.contains(name)) continue;
        EXPECT_TRUE(
            same_bits(piece.gradient, want.at(name).view({-1}).slice(0, piece.begin, piece.end)));
      }
      for (std::size_t i = 0; i < network.parameters.size(); ++i) {
        const Tensor sum = Tensor::full({1}, static_cast<double>(covered[i]), DType::i64);
        group->all_reduce(sum);
        EXPECT_EQ(sum.item(), network.parameters[i].second.value().numel());
      }
    }
  }
}

TEST(GradientBuckets, SaysWhereAGradientStoppedBeingFinite) {
  const auto group = all_ranks();
  if (group->size() == 1) return;
  Network network;
  GradientBuckets buckets(network.parameters, group, 1000, GradientBuckets::Result::own_part);
  network.loss(ranks().rank(), 0).backward();
  if (ranks().rank() == 1)
    network.at("shared.weight").grad().data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  buckets.reduce();
  const auto name = buckets.first_non_finite_here();
  EXPECT_EQ(name.value_or(""), ranks().rank() == 1 ? "shared.weight" : "");
}

TEST(GradientBuckets, ReadingAParameterWaitsForItsBucketAlone) {
  const auto group = all_ranks();
  Network network;
  GradientBuckets buckets(network.parameters, group, 4, GradientBuckets::Result::own_part);
  const std::int64_t count = buckets.bucket_count();
  ASSERT_EQ(count, static_cast<std::int64_t>(network.parameters.size()));
  for (int round = 0; round < 2; ++round) {
    // Each rank writes its number into its own part.
    for (const ParameterPiece& piece : buckets.own())
      network.parameters[piece.parameter]
          .second.value()
          .view({-1})
          .slice(0, piece.begin, piece.end)
          .fill(100 * round + group->rank());
    buckets.gather_values();
    EXPECT_EQ(buckets.arriving(), count);
    const Variable& first = network.at("first.weight");
    const std::uint64_t before = [&] {
      const Variable& other = network.at("last.weight");
      return other.value().storage()->version();
    }();
    EXPECT_EQ(buckets.arriving(), count - 1);
    EXPECT_EQ(first.value().data<float>()[0], 100 * round);
    EXPECT_EQ(first.value().data<float>()[first.value().numel() - 1],
              100 * round + group->size() - 1);
    EXPECT_EQ(buckets.arriving(), count - 2);
    EXPECT_EQ(network.at("last.weight").value().storage()->version(), before) << "taken twice";
    if (round == 1) continue;
    // Gradients need the buckets: values that nobody has read are taken out of them first.
    buckets.reduce();
    EXPECT_EQ(buckets.arriving(), 0);
    const Tensor& never = network.at("never").value();
    EXPECT_EQ(never.data<float>()[never.numel() - 1], group->size() - 1);
  }
  // What is on its way when the buckets go is the group's to finish.
}

struct Trained {
  std::map<std::string, Tensor> values;
  std::vector<double> norms;
};

void add_groups(ParallelAdamW& optimizer, const NamedParameters& parameters,
                const std::shared_ptr<Communicator>& group) {
  NamedParameters matrices, vectors;
  for (const auto& parameter : parameters)
    (parameter.second.value().ndim() > 1 ? matrices : vectors).push_back(parameter);
  optimizer.add_group("decayed", matrices, 0.1, group);
  optimizer.add_group("not decayed", vectors, 0, group);
}

const AdamWArgs kArgs{.learning_rate = 0.01};

std::map<std::string, Tensor> values_of(const Network& network) {
  std::map<std::string, Tensor> out;
  for (const auto& [name, variable] : network.parameters) out[name] = variable.value().clone();
  return out;
}

double one_step(ParallelAdamW& optimizer, Network& network, std::uint64_t step) {
  optimizer.clear_gradients();
  {
    const ObserveBackward sending(optimizer.observer());
    network.loss(ranks().rank(), step).backward();
  }
  optimizer.reduce_gradients();
  const double norm = optimizer.gradient_norm();
  optimizer.step(0.01, clip_scale(norm, 1.0));
  return norm;
}

/// One rank that has every rank's loss, with AdamW itself.
Trained train_alone(std::uint64_t steps) {
  Network network;
  AdamW optimizer(kArgs);
  NamedParameters matrices, vectors;
  for (const auto& parameter : network.parameters)
    (parameter.second.value().ndim() > 1 ? matrices : vectors).push_back(parameter);
  optimizer.add_group("decayed", matrices, 0.1);
  optimizer.add_group("not decayed", vectors, 0);
  Trained out;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const auto sums = summed_gradients(step, network);
    for (auto& [name, variable] : network.parameters)
      variable.set_grad(sums.contains(name) ? sums.at(name) : Tensor());
    out.norms.push_back(gradient_norm(network.parameters));
    optimizer.step(0.01, clip_scale(out.norms.back(), 1.0));
  }
  out.values = values_of(network);
  return out;
}

Trained train_together(std::uint64_t steps, bool zero) {
  Network network;
  const auto group = all_ranks();
  ParallelAdamW optimizer(kArgs, group, {.zero = zero, .bucket_bytes = 2500});
  add_groups(optimizer, network.parameters, group);
  Trained out;
  for (std::uint64_t step = 0; step < steps; ++step)
    out.norms.push_back(one_step(optimizer, network, step));
  out.values = values_of(network);
  const double squares = [&] {
    double sum = 0;
    for (const auto& [name, square] : optimizer.gradient_squares()) sum += square;
    return std::sqrt(sum);
  }();
  EXPECT_NEAR(squares, out.norms.back(), 1e-12 * squares);
  return out;
}

void expect_same(const std::map<std::string, Tensor>& got,
                 const std::map<std::string, Tensor>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, value] : want) EXPECT_TRUE(same_bits(got.at(name), value)) << name;
}

TEST(ParallelAdamW, FollowsOneRankWithZeroAndWithout) {
  const Trained want = train_alone(6);
  const Trained plain = train_together(6, false), zero = train_together(6, true);
  for (std::size_t i = 0; i < want.norms.size(); ++i) {
    EXPECT_NEAR(plain.norms[i], want.norms[i], 1e-9 * want.norms[i]);
    EXPECT_EQ(zero.norms[i], plain.norms[i]);
  }
  for (const auto& [name, value] : want.values)
    EXPECT_TRUE(testing::near(zero.values.at(name), value, 1e-6)) << name;
  expect_same(zero.values, plain.values);
  expect_same(train_together(6, true).values, zero.values);
}

TEST(ParallelAdamW, ZeroKeepsItsShareOfTheMoments) {
  const auto group = all_ranks();
  std::int64_t elements = 0;
  const auto bytes = [&](bool zero) {
    Network network;
    elements = 0;
    for (const auto& [name, variable] : network.parameters)
      if (name != "never" && (name != "idle" || group->size() > 1))
        elements += variable.value().numel();
    ParallelAdamW optimizer(kArgs, group, {.zero = zero, .bucket_bytes = 1});
    add_groups(optimizer, network.parameters, group);
    one_step(optimizer, network, 0);
    return optimizer.state_bytes();
  };
  const std::int64_t whole = bytes(false);
  EXPECT_EQ(whole, 8 * elements);
  const Tensor sum = Tensor::full({1}, static_cast<double>(bytes(true)), DType::i64);
  group->all_reduce(sum);
  EXPECT_EQ(sum.item(), 8 * elements);
}

/// What all ranks saved, as a reader of checkpoints sees it.
class Saved {
 public:
  explicit Saved(const ParallelAdamW& optimizer) {
    for (const MomentPiece& piece : optimizer.state()) {
      put(piece.parameter + ".exp_avg", piece, piece.exp_avg);
      put(piece.parameter + ".exp_avg_sq", piece, piece.exp_avg_sq);
      steps[piece.parameter] = piece.steps;
    }
    for (auto& [name, moment] : moments_) {
      ranks().all_reduce(moment);
      ranks().all_reduce(writers_.at(name));
      for (std::int64_t i = 0; i < moment.numel(); ++i)
        if (writers_.at(name).data<std::int32_t>()[i] > 1) ++twice;
    }
    const Network network;
    for (const auto& [name, variable] : network.parameters) {
      const Tensor count = Tensor::full(
          {1}, steps.contains(name) ? static_cast<double>(steps[name]) : 0, DType::i64);
      ranks().all_reduce(count, Reduction::max);
      if (count.item() > 0) steps[name] = static_cast<std::int64_t>(count.item());
    }
  }
  ParallelAdamW::Moments reader() const {
    return [this](const std::string& name, std::int64_t begin, std::int64_t end) {
      return moments_.at(name).slice(0, begin, end).clone();
    };
  }
  std::map<std::string, std::int64_t> steps;
  std::int64_t twice = 0;

 private:
  void put(const std::string& name, const MomentPiece& piece, const Tensor& moment) {
    moments_.at(name).slice(0, piece.begin, piece.end).copy_from(moment.contiguous().view({-1}));
    writers_.at(name).slice(0, piece.begin, piece.end).fill(1);
  }
  static std::map<std::string, Tensor> blank(DType dtype) {
    std::map<std::string, Tensor> out;
    const Network network;
    for (const auto& [name, variable] : network.parameters)
      for (const char* kind : {".exp_avg", ".exp_avg_sq"})
        out[name + kind] = Tensor::zeros({variable.value().numel()}, dtype);
    return out;
  }
  std::map<std::string, Tensor> moments_ = blank(DType::f32);
  std::map<std::string, Tensor> writers_ = blank(DType::i32);
};

TEST(ParallelAdamW, ASavedStateGoesOnWithZeroOrWithout) {
  const Trained want = train_together(6, true);
  const auto group = all_ranks();
  for (const bool first_zero : {false, true})
    for (const bool then_zero : {false, true}) {
      Network network;
      ParallelAdamW first(kArgs, group, {.zero = first_zero, .bucket_bytes = 2500});
      add_groups(first, network.parameters, group);
      for (std::uint64_t step = 0; step < 3; ++step) one_step(first, network, step);
      const Saved saved(first);
      EXPECT_EQ(saved.twice, 0);
      EXPECT_FALSE(saved.steps.contains("never"));
      ParallelAdamW second(kArgs, group, {.zero = then_zero, .bucket_bytes = 300});
      add_groups(second, network.parameters, group);
      second.load_state(saved.reader(), saved.steps);
      for (std::uint64_t step = 3; step < 6; ++step) one_step(second, network, step);
      // Other buckets cut the norm's sum elsewhere, which moves its last bits.
      for (const auto& [name, value] : want.values)
        EXPECT_TRUE(testing::near(network.at(name).value(), value, 1e-6)) << name;
    }
}

TEST(ParallelAdamW, StateOfAnUnknownParameterIsRefusedOnEveryRank) {
  const auto group = all_ranks();
  Network network;
  ParallelAdamW optimizer(kArgs, group);
  add_groups(optimizer, network.parameters, group);
  EXPECT_TRUE(testing::throws_with(
      [&] {
        optimizer.load_state([](const std::string&, std::int64_t b,
                                std::int64_t e) { return Tensor::zeros({e - b}); },
                             {{"other", 2}});
      },
      {"known parameters, got other"}));
}

}  // namespace
}  // namespace lectern
