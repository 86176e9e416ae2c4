#include "distributed/gradient_buckets.h"

#include "core/ops/adamw.h"

#include <algorithm>
#include <cstring>

namespace lectern {

GradientBuckets::GradientBuckets(NamedParameters parameters, std::shared_ptr<Communicator> ranks,
                                 std::int64_t bucket_bytes, Result result)
    : parameters_(std::move(parameters)), ranks_(std::move(ranks)), result_(result) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, variable] = parameters_[i];
    if (variable.dtype() != DType::f32 || !variable.value().is_contiguous())
      fail<ConfigError>(fmt::format("ranks: parameter {} must be contiguous f32, got {}", name,
                                    variable.value().describe()));
    index_.emplace(variable.state(), i);
  }
  places_.resize(parameters_.size());
  make_buckets(bucket_bytes);
  cut_into_parts();
  has_gradient_ = Tensor::zeros({static_cast<std::int64_t>(parameters_.size())}, DType::i32);
}

GradientBuckets::~GradientBuckets() {
  for (auto& [name, variable] : parameters_) expect_value(variable.state(), nullptr);
}

void GradientBuckets::make_buckets(std::int64_t bucket_bytes) {
  constexpr std::int64_t kElement = 4;
  for (std::size_t i = parameters_.size(); i-- > 0;) {
    if (buckets_.empty() || buckets_.back().elements * kElement >= bucket_bytes)
      buckets_.emplace_back();
    Bucket& bucket = buckets_.back();
    places_[i] = {buckets_.size() - 1, bucket.elements, false};
    bucket.parameters.push_back(i);
    bucket.elements += parameters_[i].second.value().numel();
  }
}

void GradientBuckets::cut_into_parts() {
  constexpr std::int64_t kGrain = 16;  // elements: parts begin at whole cache lines
  const std::int64_t ranks = ranks_->size(), self = ranks_->rank();
  const Device device = parameters_.empty() ? Device{} : parameters_[0].second.value().device();
  for (Bucket& bucket : buckets_) {
    if (ranks_->prefers_equal_parts()) {
      const std::int64_t step = ranks * kGrain;
      bucket.elements = (bucket.elements + step - 1) / step * step;
    }
    const auto cut = [&](std::int64_t r) {
      return r == ranks ? bucket.elements : bucket.elements * r / ranks / kGrain * kGrain;
    };
    for (std::int64_t r = 0; r < ranks; ++r) bucket.parts.push_back(cut(r + 1) - cut(r));
    bucket.own_begin = cut(self);
    const std::int64_t own_end = cut(self + 1);
    bucket.flat = Tensor::zeros({bucket.elements}, DType::f32, device);
    bucket.sum = result_ == Result::whole
                     ? bucket.flat.slice(0, bucket.own_begin, own_end)
                     : Tensor::zeros({own_end - bucket.own_begin}, DType::f32, device);
    bucket.missing = bucket.parameters.size();
    for (const std::size_t i : bucket.parameters) {
      const std::int64_t offset = places_[i].offset, size = parameters_[i].second.value().numel();
      const std::int64_t begin = std::max(bucket.own_begin, offset);
      const std::int64_t end = std::min(own_end, offset + size);
      if (begin < end)
        own_.push_back({i, begin - offset, end - offset,
                        bucket.sum.slice(0, begin - bucket.own_begin, end - bucket.own_begin)});
    }
  }
}

Tensor GradientBuckets::place_of(std::size_t parameter) const {
  const Place& place = places_[parameter];
  const Tensor& value = parameters_[parameter].second.value();
  return buckets_[place.bucket]
      .flat.slice(0, place.offset, place.offset + value.numel())
      .view(value.shape());
}

void GradientBuckets::take(std::size_t parameter) {
  take_values(buckets_[places_[parameter].bucket]);  // nobody may have read it in this step
  Variable& variable = parameters_[parameter].second;
  const bool is_there = variable.grad().defined();
  has_gradient_.data<std::int32_t>()[parameter] = is_there ? 1 : 0;
  const Tensor place = place_of(parameter);
  if (is_there)
    place.copy_from(variable.grad());
  else
    place.fill(0);
  variable.clear_grad();
  places_[parameter].taken = true;
  --buckets_[places_[parameter].bucket].missing;
}

void GradientBuckets::start_ready_buckets() {
  for (; started_ < buckets_.size() && buckets_[started_].missing == 0; ++started_) {
    Bucket& bucket = buckets_[started_];
    bucket.handle = result_ == Result::whole
                        ? ranks_->start_all_reduce(bucket.flat)
                        : ranks_->start_reduce_scatter(bucket.flat, bucket.sum, bucket.parts);
  }
}

void GradientBuckets::gradient_complete(VariableState* leaf) {
  const auto found = index_.find(leaf);
  if (found == index_.end()) return;
  take(found->second);
  start_ready_buckets();
}

void GradientBuckets::reduce() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!places_[i].taken)
      take(i);
    else if (parameters_[i].second.grad().defined())
      fail<Error>(fmt::format("ranks: the gradient of {} grew after it was said to be complete",
                              parameters_[i].first));
  }
  start_ready_buckets();
  Handle flags = ranks_->start_all_reduce(has_gradient_, Reduction::max);
  for (Bucket& bucket : buckets_) {
    bucket.handle.wait();
    bucket.missing = bucket.parameters.size();
  }
  flags.wait();
  started_ = 0;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    places_[i].taken = false;
    if (result_ == Result::whole && has_gradient(i)) parameters_[i].second.set_grad(place_of(i));
  }
}

bool GradientBuckets::has_gradient(std::size_t parameter) const {
  return has_gradient_.data<std::int32_t>()[parameter] != 0;
}

std::optional<std::string> GradientBuckets::first_non_finite_here() const {
  if (result_ == Result::whole) return {};
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    if (!all_finite(place_of(i))) return parameters_[i].first;
  return {};
}

void GradientBuckets::gather_values() {
  std::size_t end = own_.size();  // pieces come bucket by bucket; the last bucket is used first
  for (std::size_t b = buckets_.size(); b-- > 0;) {
    Bucket& bucket = buckets_[b];
    const Tensor own =
        bucket.flat.slice(0, bucket.own_begin, bucket.own_begin + bucket.sum.numel());
    for (; end > 0 && places_[own_[end - 1].parameter].bucket == b; --end) {
      const ParameterPiece& at = own_[end - 1];
      const std::int64_t to = places_[at.parameter].offset + at.begin - bucket.own_begin;
      const Tensor value = parameters_[at.parameter].second.value().view({-1});
      own.slice(0, to, to + at.end - at.begin).copy_from(value.slice(0, at.begin, at.end));
    }
    bucket.values = ranks_->start_all_gather(own, bucket.flat, bucket.parts);
    bucket.is_arriving = true;
    for (const std::size_t i : bucket.parameters) expect_value(parameters_[i].second.state(), this);
  }
}

void GradientBuckets::wait_for(VariableState* leaf) {
  take_values(buckets_[places_[index_.at(leaf)].bucket]);
}

void GradientBuckets::take_values(Bucket& bucket) {
  if (!bucket.is_arriving) return;
  bucket.values.wait();
  bucket.is_arriving = false;
  for (const std::size_t i : bucket.parameters) {
    expect_value(parameters_[i].second.state(), nullptr);
    const Tensor& value = parameters_[i].second.value();
    value.copy_from(place_of(i));
    value.mark_modified();
  }
}

std::int64_t GradientBuckets::arriving() const {
  return std::count_if(buckets_.begin(), buckets_.end(),
                       [](const Bucket& bucket) { return bucket.is_arriving; });
}

}  // namespace lectern
