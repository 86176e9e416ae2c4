#include "data/samples/loader.h"

#include "core/error.h"
#include "core/parallel.h"
#include "core/threads.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

namespace lectern {
namespace {

/// What is needed to make one batch, decided from lengths alone.
struct Plan {
  std::vector<Draw> draws;
  LoadedBatch place;  // step, view, counts; no tensors
  LoaderState after;  // of the step
};

void check_options(const LoaderOptions& options) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      fail<ConfigError>(fmt::format("loader: {} must be >= {}, got {}", name, least, value));
  };
  at_least("ranks", options.ranks, 1);
  at_least("global_batch", options.global_batch, 1);
  at_least("micro_batch", options.micro_batch, 0);
  at_least("workers", options.workers, 0);
  at_least("ahead", options.ahead, 1);
  at_least("pack_tokens", options.batch.pack_tokens, 0);
  at_least("image_token_work", options.image_token_work, 0);
  if (options.rank < 0 || options.rank >= options.ranks)
    fail<ConfigError>(
        fmt::format("loader: rank must be in 0 .. {}, got {}", options.ranks - 1, options.rank));
  if (options.global_batch % options.ranks != 0)
    fail<ConfigError>(fmt::format("loader: global_batch must be a multiple of {} ranks, got {}",
                                  options.ranks, options.global_batch));
}

/// The rank of each batch: those with most work first, each to the rank with least so far among
/// those that still take one. Every rank gets as many batches.
struct Spread {
  std::vector<int> rank_of;
  double largest_over_mean = 1;
};

Spread spread_batches(const std::vector<std::int64_t>& work, int ranks) {
  Spread out{std::vector<int>(work.size(), 0), 1};
  if (ranks == 1) return out;
  std::vector<std::size_t> order(work.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return work[a] > work[b]; });
  std::vector<std::int64_t> sum(static_cast<std::size_t>(ranks), 0);
  std::vector<std::size_t> taken(sum.size(), 0);
  const std::size_t most = work.size() / sum.size();
  for (const std::size_t batch : order) {
    std::size_t best = sum.size();
    for (std::size_t r = 0; r < sum.size(); ++r)
      if (taken[r] < most && (best == sum.size() || sum[r] < sum[best])) best = r;
    out.rank_of[batch] = static_cast<int>(best);
    sum[best] += work[batch];
    ++taken[best];
  }
  const std::int64_t total = std::accumulate(sum.begin(), sum.end(), std::int64_t{0});
  if (total > 0)
    out.largest_over_mean = static_cast<double>(*std::max_element(sum.begin(), sum.end())) *
                            static_cast<double>(ranks) / static_cast<double>(total);
  return out;
}

}  // namespace

struct Loader::State {
  std::shared_ptr<const SampleSet> samples;
  LoaderOptions options;
  Sampler sampler;
  std::int64_t rank_rows, rows_a_batch, micro_batches;

  std::mutex mutex;
  std::condition_variable work, done;
  bool stopping = false;
  std::uint64_t planned = 0, given = 0;  // batches
  LoaderState plan_state;                // before the next step to plan
  LoaderState finished;                  // what state() says
  std::vector<Plan> step;                // plans of the current step, in order
  std::size_t step_taken = 0;
  struct Made {
    LoadedBatch batch;
    LoaderState after;
    std::exception_ptr error;
  };
  std::map<std::uint64_t, Made> made;
  std::exception_ptr failed;
  std::exception_ptr lost;  // why a batch could not be kept
  std::vector<std::thread> threads;

  State(std::shared_ptr<const SampleSet> set, LoaderOptions given_options, LoaderState start)
      : samples(std::move(set)),
        options(std::move(given_options)),
        sampler(samples->sampler_sources(), options.seed, options.shuffle),
        rank_rows(options.global_batch / options.ranks),
        plan_state(start),
        finished(start) {
    rows_a_batch = options.batch.pack_tokens > 0 ? 1 : options.micro_batch;
    if (rows_a_batch == 0) rows_a_batch = rank_rows;
    rows_a_batch = std::min(rows_a_batch, rank_rows);
    micro_batches = (rank_rows + rows_a_batch - 1) / rows_a_batch;
  }

  int view_of(std::uint64_t step_number) const {
    return static_cast<int>(step_number % samples->options().views.size());
  }

  Draw draw_at(std::uint64_t position) const {
    Draw draw = sampler.at(position - options.first_position);
    draw.position = position;
    return draw;
  }

  /// A sample longer than a pack could never be placed: found now, not in the middle of a run.
  void check_lengths() const {
    if (options.batch.pack_tokens == 0) return;
    for (int view = 0; view < static_cast<int>(samples->options().views.size()); ++view)
      if (const std::int64_t longest = samples->longest(view); longest > options.batch.pack_tokens)
        fail<ConfigError>(
            fmt::format("loader: pack_tokens must be at least the longest sample's {} tokens, got "
                        "{} (max_response_tokens bounds it)",
                        longest, options.batch.pack_tokens));
  }

  /// Adds the samples of the next row to `row` and returns the position after it.
  std::uint64_t plan_row(std::uint64_t position, int view, std::vector<Draw>& row) const {
    if (options.batch.pack_tokens == 0) {
      row.push_back(draw_at(position));
      return position + 1;
    }
    for (std::int64_t room = options.batch.pack_tokens;; ++position) {
      const Draw draw = draw_at(position);
      room -= samples->token_count(draw, view);
      if (room < 0) return position;
      row.push_back(draw);
    }
  }

  /// Work of a batch in tokens of text. Rows that are not packed are padded to the longest.
  std::int64_t work_of(const std::vector<Draw>& draws, int view) const {
    std::int64_t longest = 0, sum = 0, image_tokens = 0;
    for (const Draw& draw : draws) {
      const SampleLengths lengths = samples->lengths(draw, view);
      const std::int64_t tokens = samples->token_count(lengths);
      longest = std::max(longest, tokens);
      sum += tokens;
      image_tokens += lengths.image;
    }
    const auto rows = static_cast<std::int64_t>(draws.size());
    return (options.batch.pack_tokens > 0 ? sum : rows * longest) +
           options.image_token_work * image_tokens;
  }

  /// Plans the whole step and keeps this rank's part.
  void plan_step() {
    const int view = view_of(plan_state.step);
    Plan plan;
    plan.place.step = plan_state.step;
    plan.place.view = view;
    plan.place.micro_batches = micro_batches;
    std::vector<std::vector<Draw>> batches(static_cast<std::size_t>(micro_batches * options.ranks));
    std::uint64_t position = plan_state.samples;
    std::vector<Draw> row;
    for (std::int64_t i = 0; i < options.global_batch; ++i) {
      row.clear();
      position = plan_row(position, view, row);
      for (const Draw& draw : row) plan.place.step_trained_tokens += samples->trained_count(draw);
      // A rank's share of the rows may end with a shorter batch.
      const std::int64_t batch = i / rank_rows * micro_batches + i % rank_rows / rows_a_batch;
      auto& draws = batches[static_cast<std::size_t>(batch)];
      draws.insert(draws.end(), row.begin(), row.end());
    }
    plan.place.step_samples = static_cast<std::int64_t>(position - plan_state.samples);
    plan_state = {position, plan_state.step + 1};
    plan.after = plan_state;
    std::vector<std::int64_t> work;
    if (options.ranks > 1)
      for (const auto& draws : batches) work.push_back(work_of(draws, view));
    else
      work.resize(batches.size());
    const Spread spread = spread_batches(work, options.ranks);
    plan.place.step_work_spread = spread.largest_over_mean;
    step.clear();
    step_taken = 0;
    for (std::size_t i = 0; i < batches.size(); ++i) {
      if (spread.rank_of[i] != options.rank) continue;
      plan.draws = std::move(batches[i]);
      plan.place.micro_batch = static_cast<std::int64_t>(step.size());
      step.push_back(plan);
    }
  }

  Plan next_plan() {
    if (step_taken == step.size()) plan_step();
    ++planned;
    return std::move(step[step_taken++]);
  }

  Made make(const Plan& plan) const {
    Made out{plan.place, plan.after, nullptr};
    try {
      std::vector<Sample> pieces;
      pieces.reserve(plan.draws.size());
      for (const Draw& draw : plan.draws) {
        const bool cached =
            options.is_cached && options.is_cached(samples->key(draw, plan.place.view));
        pieces.push_back(samples->make(draw, plan.place.view, !cached));
      }
      static_cast<Batch&>(out.batch) = make_batch(pieces, samples->options(), options.batch);
    } catch (...) {
      out.error = std::current_exception();
    }
    return out;
  }

  void run_worker() {
    set_thread_count(1);  // of this thread's own loops: the training step has the cores
    std::unique_lock lock(mutex);
    while (true) {
      work.wait(lock, [&] {
        return stopping || planned < given + static_cast<std::uint64_t>(options.ahead);
      });
      if (stopping) return;
      const std::uint64_t number = planned;
      Made result;
      try {
        const Plan plan = next_plan();
        lock.unlock();
        result = make(plan);
        lock.lock();
      } catch (...) {  // planning failed, with the lock held
        result.error = std::current_exception();
        planned = number + 1;
      }
      try {
        made.emplace(number, std::move(result));
      } catch (...) {
        lost = std::current_exception();
      }
      done.notify_all();
    }
  }

  Made take() {
    if (options.workers == 0) {
      ++given;
      return make(next_plan());
    }
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return made.contains(given) || lost != nullptr; });
    if (!made.contains(given)) std::rethrow_exception(lost);
    auto node = made.extract(given++);
    work.notify_all();
    return std::move(node.mapped());
  }
};

Loader::Loader(std::shared_ptr<const SampleSet> samples, LoaderOptions options, LoaderState start) {
  check_options(options);
  if (start.samples < options.first_position)
    fail<ConfigError>(fmt::format("loader: start must be at or after first_position = {}, got {}",
                                  options.first_position, start.samples));
  state_ = std::make_unique<State>(std::move(samples), std::move(options), start);
  state_->check_lengths();
  state_->threads =
      start_threads(state_->options.workers, [state = state_.get()] { state->run_worker(); });
  if (state_->threads.empty()) state_->options.workers = 0;  // batches are made when asked for
}

Loader::~Loader() {
  if (state_ == nullptr) return;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

LoadedBatch Loader::next() {
  if (state_->failed != nullptr) std::rethrow_exception(state_->failed);
  State::Made made = state_->take();
  if (made.error != nullptr) {
    state_->failed = made.error;
    std::rethrow_exception(made.error);
  }
  if (made.batch.micro_batch + 1 == made.batch.micro_batches) state_->finished = made.after;
  return std::move(made.batch);
}

LoaderState Loader::state() const { return state_->finished; }
std::int64_t Loader::micro_batches() const { return state_->micro_batches; }

}  // namespace lectern
