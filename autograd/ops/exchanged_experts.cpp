#include "autograd/ops/exchanged_experts.h"

#include "autograd/compute_dtype.h"
#include "core/ops/experts.h"
#include "core/ops/reduce.h"
#include "core/ops/rows.h"
#include "core/parallel.h"

#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

namespace lectern {
namespace {

/// Where the pairs of this rank go, and how many come here.
struct Routes {
  ExpertOrder order;  // of this rank's pairs, over all experts
  std::int64_t choices = 0;
  RowExchange::Counts send, receive;

  std::int64_t received() const {
    return std::accumulate(receive.begin(), receive.end(), std::int64_t{0});
  }
};

/// Index for select_rows(): row f(i) of one source.
template <typename F>
Tensor index_of(std::int64_t rows, F&& f) {
  const Tensor index = Tensor::zeros({rows, 2}, DType::i32);
  for (std::int64_t i = 0; i < rows; ++i)
    index.data<std::int32_t>()[2 * i + 1] = static_cast<std::int32_t>(f(i));
  return index;
}

bool on_cpu(const Tensor& x) { return x.device().type == DeviceType::cpu; }

/// Row n of x for every pair (n, k), in the order of the places.
Tensor rows_by_place(const Tensor& x, const Routes& routes) {
  const auto pairs = static_cast<std::int64_t>(routes.order.pair_at.size());
  const auto token_at = [&](std::int64_t p) {
    return routes.order.pair_at[static_cast<std::size_t>(p)] / routes.choices;
  };
  if (!on_cpu(x)) return select_rows({x}, index_of(pairs, token_at));
  const Tensor out = Tensor::empty({pairs, x.dim(1)}, x.dtype());
  const std::size_t bytes = static_cast<std::size_t>(x.dim(1)) * size_of(x.dtype());
  parallel_for(pairs, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      std::memcpy(
          static_cast<std::byte*>(out.raw()) + static_cast<std::size_t>(p) * bytes,
          static_cast<const std::byte*>(x.raw()) + static_cast<std::size_t>(token_at(p)) * bytes,
          bytes);
  });
  return out;
}

/// out[n] = sum over k of rows[place of (n, k)].
Tensor sum_choices(const Tensor& rows, std::int64_t tokens, const Routes& routes) {
  const std::int64_t width = rows.dim(1), choices = routes.choices;
  const auto place_of = [&](std::int64_t n, std::int64_t k) {
    return routes.order.place_of[static_cast<std::size_t>(n * choices + k)];
  };
  if (!on_cpu(rows)) {
    const Tensor index = index_of(choices * tokens,
                                  [&](std::int64_t i) { return place_of(i % tokens, i / tokens); });
    return sum_leading(select_rows({rows}, index).view({choices, tokens, width}), {tokens, width});
  }
  const Tensor out = Tensor::zeros({tokens, width}, rows.dtype());
  dispatch_floating(rows.dtype(), "exchanged_experts", [&]<typename T>() {
    const T* from = rows.data<T>();
    T* to = out.data<T>();
    parallel_for(tokens, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n)
        for (std::int64_t k = 0; k < choices; ++k) {
          const T* row = from + place_of(n, k) * width;
          for (std::int64_t c = 0; c < width; ++c) to[n * width + c] += row[c];
        }
    });
  });
  return out;
}

/// out[i] = values[from[i]], a column.
template <typename T>
void pick(const Tensor& values, const std::vector<std::int32_t>& from, const Tensor& out) {
  for (std::size_t i = 0; i < from.size(); ++i) out.data<T>()[i] = values.data<T>()[from[i]];
}
Tensor picked(const Tensor& values, const std::vector<std::int32_t>& from) {
  const auto count = static_cast<std::int64_t>(from.size());
  if (!on_cpu(values))
    return select_rows({values.view({count, 1})}, index_of(count, [&](std::int64_t i) {
                         return from[static_cast<std::size_t>(i)];
                       }));
  const Tensor out = Tensor::empty({count, 1}, values.dtype());
  if (values.dtype() == DType::i32)
    pick<std::int32_t>(values, from, out);
  else
    dispatch_floating(values.dtype(), "exchanged_experts",
                      [&]<typename T>() { pick<T>(values, from, out); });
  return out;
}

Routes find_routes(const Tensor& indices, std::int64_t experts, RowExchange& exchange) {
  Routes routes;
  routes.order = sort_by_expert(indices, experts);
  routes.choices = indices.dim(1);
  const std::int64_t ranks = exchange.ranks(), each = experts / ranks;
  for (std::int64_t r = 0; r < ranks; ++r)
    routes.send.push_back(routes.order.begin[static_cast<std::size_t>((r + 1) * each)] -
                          routes.order.begin[static_cast<std::size_t>(r * each)]);
  routes.receive = exchange.counts(routes.send);
  return routes;
}

}  // namespace

// Over 60 lines: backward repeats the exchanges of forward the other way round, side by side.
Variable exchanged_experts(const Variable& x, const Variable& weights, const Tensor& indices,
                           const Variable& gate_up, const Variable& down, std::int64_t experts,
                           RowExchange& exchange, const std::function<void()>& meanwhile) {
  if (experts % exchange.ranks() != 0 || gate_up.dim(0) != experts / exchange.ranks())
    fail<ShapeError>(fmt::format(
        "exchanged_experts: gate_up must hold the experts of one of {} ranks, got {} of {}",
        exchange.ranks(), gate_up.dim(0), experts));
  // Where rows go is decided on the host, whatever device they are on.
  const Tensor chosen = indices.to(Device{});
  auto routes = std::make_shared<const Routes>(find_routes(chosen, experts, exchange));
  const Device device = x.value().device();
  const std::int64_t tokens = x.dim(0), width = x.dim(1), received = routes->received();
  const auto pairs = static_cast<std::int64_t>(routes->order.pair_at.size());
  const std::int64_t first = experts / exchange.ranks() * exchange.rank();

  const Tensor values = x.value().contiguous();
  const Tensor sent_rows = rows_by_place(values, *routes);
  const Tensor sent_weights = picked(weights.value().contiguous(), routes->order.pair_at);
  const Tensor sent_indices = picked(chosen, routes->order.pair_at);
  const Tensor rows = Tensor::empty({received, width}, values.dtype(), device);
  const Tensor row_weights = Tensor::empty({received, 1}, weights.dtype(), device);
  const Tensor row_indices = Tensor::empty({received, 1}, DType::i32);
  exchange.start(sent_rows, routes->send, rows, routes->receive);
  exchange.start(sent_weights, routes->send, row_weights, routes->receive);
  exchange.start(sent_indices, routes->send, row_indices, routes->receive);
  if (meanwhile) meanwhile();
  exchange.wait();
  for (std::int64_t i = 0; i < received; ++i)
    row_indices.data<std::int32_t>()[i] -= static_cast<std::int32_t>(first);

  const ExpertsWanted wanted = {x.requires_grad(), weights.requires_grad(), gate_up.requires_grad(),
                                down.requires_grad()};
  const bool keep = grad_enabled() && (wanted.x || wanted.weights || wanted.gate_up || wanted.down);
  const ExpertsInput input = {as_operand(rows), row_weights, row_indices.to(device),
                              as_weight_operand(gate_up.value()), as_weight_operand(down.value())};
  ExpertsResult result = experts_forward(input, keep);
  const Tensor returned = Tensor::empty({pairs, width}, result.out.dtype(), device);
  exchange.start(result.out, routes->receive, returned, routes->send);
  exchange.wait();
  Tensor out = sum_choices(returned, tokens, *routes);
  result.out = Tensor();
  if (!keep) return Variable(std::move(out));
  auto kept = std::make_shared<const ExpertsResult>(std::move(result));
  const Shape weights_shape = weights.shape();
  return record(
      "exchanged_experts", std::move(out), {x, weights, gate_up, down},
      [input, kept, wanted, routes, weights_shape, device, &exchange](const Tensor& grad) {
        const Tensor sent = rows_by_place(grad.contiguous(), *routes);
        const auto pairs = sent.dim(0), tokens = grad.dim(0), width = grad.dim(1);
        const Tensor arrived = Tensor::empty({routes->received(), width}, grad.dtype(), device);
        exchange.start(sent, routes->send, arrived, routes->receive);
        exchange.wait();
        // Another rank may want what this one does not, so rows go back in any case.
        ExpertsWanted all = wanted;
        all.x = all.weights = true;
        ExpertsGradients g = experts_backward(arrived, input, *kept, all);
        const Tensor back = Tensor::empty({pairs, width}, g.x.dtype(), device);
        const Tensor back_weights = Tensor::empty({pairs, 1}, g.weights.dtype(), device);
        exchange.start(g.x, routes->receive, back, routes->send);
        exchange.start(g.weights, routes->receive, back_weights, routes->send);
        exchange.wait();
        return std::vector<Tensor>{
            wanted.x ? sum_choices(back, tokens, *routes) : Tensor(),
            wanted.weights ? picked(back_weights, routes->order.place_of).view(weights_shape)
                           : Tensor(),
            std::move(g.gate_up), std::move(g.down)};
      });
}

}  // namespace lectern
