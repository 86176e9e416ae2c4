#include "recipes/parity/mhc.h"

#include "autograd/ops/linear.h"
#include "autograd/ops/streams.h"
#include "core/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

constexpr const char* kConventions[] = {"paper", "megatron", "deepseek-v4"};

class MhcCase {
 public:
  explicit MhcCase(const std::filesystem::path& folder)
      : file_(SafetensorsFile::open(folder / "mhc.safetensors")) {}

  ParityReport run() {
    for (const char* convention : kConventions)
      if (file_.contains(fmt::format("{}.out", convention))) check_layer(convention);
    for (const std::string& name : file_.names())
      if (name.starts_with("sinkhorn.")) check_sinkhorn(name);
    check_merges();
    return std::move(report_);
  }

 private:
  Tensor input(const std::string& name) const { return file_.get("in." + name).to(DType::f32); }

  void add(const std::string& what, double difference, double bound, std::string note) {
    report_.rows.push_back({what, difference, bound, difference <= bound, std::move(note)});
  }

  void output(const std::string& name, const Tensor& got) {
    const Tensor want = file_.get(name);
    const double magnitude = max_abs(want), bound = 1e-4 * std::max(1.0, magnitude);
    if (got.shape() != want.shape())
      add(name, HUGE_VAL, bound, fmt::format("got {}, want {}", got.describe(), want.describe()));
    else
      add(name, max_difference(got, want), bound, fmt::format("max |ref| {:.3g}", magnitude));
  }

  void gradient(const std::string& name, const Tensor& got) {
    const Tensor want = file_.get(name);
    if (!got.defined() || got.shape() != want.shape()) {
      add(name, HUGE_VAL, 1e-3, "no gradient of the shape " + want.describe());
      return;
    }
    const double norm = l2(want);
    add(name, l2_difference(got, want) / std::max(norm, 1e-30), 1e-3,
        fmt::format("relative, |ref| {:.3g}", norm));
  }

  void check_layer(const std::string& name) {
    const StreamReadArgs args{.convention = stream_convention_from(name)};
    const Variable x(input("x"), true), fn(input("phi"), true), scale(input("alpha"), true),
        base(input("b"), true), weight(input("W"), true);
    const Streams streams(x);
    const StreamRead read = stream_read(streams, {fn, base, scale}, args);
    const Streams out = stream_write(streams, read, linear(read.input, weight));
    const bool transposed = args.convention == StreamConvention::deepseek_v4;
    output(name + ".pre", read.pre);
    output(name + ".post", read.post.value());
    output(name + ".res_logits", res_logits(args, x, fn, base, scale));
    output(name + ".res", transposed ? read.mix.transpose(1, 2).contiguous() : read.mix);
    output(name + ".layer_input", read.input.value());
    output(name + ".out", out.value);
    out.graph.backward(input("G"));
    for (const auto& [what, variable] :
         {std::pair{"x", x}, {"phi", fn}, {"alpha", scale}, {"b", base}, {"W", weight}})
      gradient(fmt::format("{}.grad.{}", name, what), variable.grad());
  }

  /// The fused kernel keeps raw products only: the logits are scale * product / rms + base.
  static Tensor res_logits(const StreamReadArgs& args, const Variable& x, const Variable& fn,
                           const Variable& base, const Variable& scale) {
    const StreamReadOutput read =
        stream_read(x.value(), {fn.value(), base.value(), scale.value()}, args);
    const std::int64_t tokens = x.dim(0), n = x.dim(1), rows = n * n + 2 * n;
    const Tensor out = Tensor::empty({tokens, n, n});
    const float count = static_cast<float>(n * x.dim(2));
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float inverse =
          stream_math::inverse_rms(args.convention, read.squares.data<float>()[t], count);
      for (std::int64_t k = 0; k < n * n; ++k)
        out.data<float>()[t * n * n + k] = scale.value().data<float>()[2] * inverse *
                                               read.products.data<float>()[t * rows + 2 * n + k] +
                                           base.value().data<float>()[2 * n + k];
    }
    return out;
  }

  /// sinkhorn.<convention>.<iterations>
  void check_sinkhorn(const std::string& name) {
    const auto dot = name.rfind('.');
    const std::string convention = name.substr(9, dot - std::min(dot, std::size_t{9}));
    std::int64_t iterations = 0;
    for (const char digit : name.substr(dot + 1))
      iterations = digit >= '0' && digit <= '9'
                       ? std::min<std::int64_t>(iterations * 10 + (digit - '0'), 1001)
                       : 1001;
    output(name,
           sinkhorn(input("sinkhorn_logits"), {stream_convention_from(convention), iterations}));
  }

  void check_merges() {
    const Streams x((Variable(input("x"))));
    if (file_.contains("head.learned"))
      output("head.learned",
             merge_streams(x, {Variable(input("head_fn")), Variable(input("head_base")),
                               Variable(input("head_scale"))})
                 .value());
    if (file_.contains("head.mean")) output("head.mean", mean_of_streams(x).value());
  }

  SafetensorsFile file_;
  ParityReport report_;
};

}  // namespace

ParityReport parity_mhc(const std::filesystem::path& folder) { return MhcCase(folder).run(); }

}  // namespace lectern
