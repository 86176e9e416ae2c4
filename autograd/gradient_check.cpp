#include "autograd/gradient_check.h"

#include "core/random.h"

#include <cmath>
#include <limits>

namespace lectern {
namespace {

using Function = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

double inner_product(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous(), y = b.contiguous();
  double sum = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) sum += x.data<double>()[i] * y.data<double>()[i];
  return sum;
}

class Checker {
 public:
  Checker(Function f, const std::vector<Tensor>& inputs, const GradientCheckOptions& options)
      : f_(std::move(f)), options_(options) {
    for (const Tensor& input : inputs) inputs_.push_back(input.to(DType::f64).clone());
  }

  GradientCheckResult run() {
    std::vector<Variable> leaves;
    for (const Tensor& input : inputs_) leaves.emplace_back(input, true);
    const std::vector<Variable> outputs = f_(leaves);
    std::vector<Variable> scalars;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      Tensor cotangent = Tensor::empty(outputs[i].shape(), DType::f64);
      Random(options_.seed, "cotangent/" + std::to_string(i)).fill_normal(cotangent, 0, 1);
      cotangents_.push_back(cotangent);
    }
    // One variable that joins all outputs, so that a shared graph runs backwards once.
    Tensor total = Tensor::full(Shape{}, value_at(outputs), DType::f64);
    const auto cotangents = cotangents_;
    record("gradient_check", total, outputs, [cotangents](const Tensor&) {
      return cotangents;
    }).backward();

    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      Tensor grad = leaves[i].grad();
      if (!grad.defined()) grad = Tensor::zeros(inputs_[i].shape(), DType::f64);
      check_input(i, grad.contiguous());
    }
    result_.passed = result_.worst <= options_.bound;
    return result_;
  }

 private:
  double value_at(const std::vector<Variable>& outputs) const {
    double sum = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      sum += inner_product(outputs[i].value(), cotangents_[i]);
    return sum;
  }

  double evaluate() const {
    const NoGrad off;
    std::vector<Variable> leaves;
    for (const Tensor& input : inputs_) leaves.emplace_back(input.clone());
    return value_at(f_(leaves));
  }

  /// Derivative along `direction` (null: the unit vector of element `at`), by central difference.
  double numeric(std::size_t input, const double* direction, std::int64_t at) {
    double* x = inputs_[input].data<double>();
    const std::int64_t n = inputs_[input].numel();
    const double scale = direction == nullptr ? std::max(1.0, std::abs(x[at])) : 1.0;
    const double step = std::cbrt(std::numeric_limits<double>::epsilon()) * scale;
    const std::vector<double> saved(x, x + n);
    const auto shift = [&](double by) {
      for (std::int64_t i = 0; i < n; ++i) {
        const auto k = static_cast<std::size_t>(i);
        x[i] = saved[k] + by * (direction == nullptr ? (i == at ? 1.0 : 0.0) : direction[i]);
      }
    };
    shift(step);
    const double above = evaluate();
    shift(-step);
    const double below = evaluate();
    shift(0);
    return (above - below) / (2 * step);
  }

  void compare(std::size_t input, std::int64_t at, double numeric, double analytic) {
    const double scale = std::max({1.0, std::abs(numeric), std::abs(analytic)});
    double difference = std::abs(numeric - analytic) / scale;
    if (std::isnan(difference)) difference = HUGE_VAL;
    if (difference <= result_.worst && !result_.message.empty()) return;
    result_.worst = difference;
    result_.message =
        fmt::format("input {} {} {}: numeric {:.10g}, analytic {:.10g}, off {:.3g}", input,
                    inputs_[input].numel() <= options_.full_limit ? "element" : "direction", at,
                    numeric, analytic, difference);
  }

  void check_input(std::size_t input, const Tensor& grad) {
    const std::int64_t n = inputs_[input].numel();
    if (n <= options_.full_limit) {
      for (std::int64_t at = 0; at < n; ++at)
        compare(input, at, numeric(input, nullptr, at), grad.data<double>()[at]);
      return;
    }
    for (int k = 0; k < options_.directions; ++k) {
      Tensor direction = Tensor::empty(inputs_[input].shape(), DType::f64);
      Random(options_.seed, fmt::format("direction/{}/{}", input, k))
          .fill_normal(direction, 0, 1 / std::sqrt(static_cast<double>(n)));
      compare(input, k, numeric(input, direction.data<double>(), 0),
              inner_product(grad, direction));
    }
  }

  Function f_;
  GradientCheckOptions options_;
  std::vector<Tensor> inputs_;
  std::vector<Tensor> cotangents_;
  GradientCheckResult result_;
};

}  // namespace

GradientCheckResult check_gradients(const Function& f, const std::vector<Tensor>& inputs,
                                    const GradientCheckOptions& options) {
  return Checker(f, inputs, options).run();
}

GradientCheckResult check_gradient(const std::function<Variable(const std::vector<Variable>&)>& f,
                                   const std::vector<Tensor>& inputs,
                                   const GradientCheckOptions& options) {
  return check_gradients(
      [&f](const std::vector<Variable>& leaves) { return std::vector<Variable>{f(leaves)}; },
      inputs, options);
}

}  // namespace lectern
