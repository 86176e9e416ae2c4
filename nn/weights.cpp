#include "nn/weights.h"

#include "core/notice.h"
#include "nn/model.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace lectern {
namespace {

/// Tensors that programs have saved with a model and that each computes for itself: tables of
/// rotary positions, numbers of positions, causal masks.
bool is_computed_anew(const std::string& name, const Shape& shape) {
  const auto dot = name.rfind('.');
  const std::string_view last =
      dot == std::string::npos ? name : std::string_view(name).substr(dot + 1);
  for (const std::string_view buffer :
       {"inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "position_ids", "masked_bias",
        "token_type_ids", "causal_mask"})
    if (last == buffer) return true;
  // A mask [1, 1, T, T] may be called as if it were a bias, which has one dimension.
  return last == "bias" && shape.ndim() == 4 && shape[0] == 1 && shape[1] == 1 &&
         shape[2] == shape[3] && name.find("attn") != std::string::npos;
}

bool wanted(const std::string& name, const std::vector<std::string>& prefixes) {
  return prefixes.empty() || matches_any(name, prefixes);
}

/// The folder's tensors under the names that parameters ask for: the parameter's own (a stack), or
/// its parts'.
class Source {
 public:
  Source(const std::filesystem::path& path,
         const std::function<std::string(const std::string&)>& rename)
      : path_(path), folder_(open(path)) {
    for (const std::string& name : folder_.names()) {
      const auto [at, is_new] = names_.emplace(rename(name), name);
      if (!is_new)
        fail<IoError>(fmt::format("{}: tensors {} and {} are the same parameter", path.string(),
                                  at->second, name));
    }
  }

  bool contains(const std::string& name) const { return names_.contains(name); }

  /// The stored name of a tensor that must be there with this shape.
  const std::string& take(const std::string& name, const Shape& expected) {
    const auto found = names_.find(name);
    if (found == names_.end())
      fail<IoError>(fmt::format("{}: has no tensor {} {}", path_.string(), name, expected));
    const std::string& stored = found->second;
    const Shape shape = folder_.shape_of(stored);
    const DType dtype = folder_.dtype_of(stored);
    if (shape != expected)
      fail<IoError>(fmt::format("{}: tensor {} must be {}, got {} {}", path_.string(), stored,
                                expected, name_of(dtype), shape));
    if (!is_floating(dtype))
      fail<IoError>(fmt::format("{}: tensor {} must be floating, got {} {}", path_.string(), stored,
                                name_of(dtype), shape));
    used_.insert(name);
    return stored;
  }

  const SafetensorsFolder& folder() const { return folder_; }

  /// Stored names that nobody has taken and no other process takes.
  std::vector<std::string> foreign_to(const ParameterStore& store) const {
    std::vector<std::string> out;
    for (const auto& [name, stored] : names_)
      if (!used_.contains(name) && !store.is_elsewhere(name)) out.push_back(stored);
    return out;
  }

 private:
  static SafetensorsFolder open(const std::filesystem::path& path) {
    return path.extension() == ".safetensors"
               ? SafetensorsFolder::open(path.parent_path(), path.stem().string())
               : SafetensorsFolder::open(path);
  }

  std::filesystem::path path_;
  SafetensorsFolder folder_;
  std::map<std::string, std::string> names_;  // published -> stored
  std::set<std::string> used_;
};

/// Where the value of one parameter comes from.
struct Plan {
  const Parameter* parameter = nullptr;
  std::vector<std::string> stored;  ///< one name a part, or one for the whole stack
  bool stacked = false;
};

Plan plan_for(const Parameter& parameter, Source& source) {
  Plan plan;
  plan.parameter = &parameter;
  const Tensor& value = parameter.variable.value();
  plan.stacked = source.contains(parameter.name);
  if (plan.stacked) {
    plan.stored.push_back(source.take(parameter.name, parameter.whole_shape()));
    return plan;
  }
  for (const ParameterPart& part : parameter.parts)
    plan.stored.push_back(source.take(part.name, parameter.part_of(value, part).shape()));
  return plan;
}

/// True when the value now is a view of the file.
bool map_value(const Plan& plan, const SafetensorsFolder& folder) {
  Variable variable = plan.parameter->variable;
  if (folder.dtype_of(plan.stored[0]) != variable.dtype()) return false;
  const Shape stored = plan.stacked ? plan.parameter->whole_shape() : variable.shape();
  const auto joined = folder.get_joined(plan.stored, stored);
  if (joined) variable.set_value(plan.stacked ? plan.parameter->share_of(*joined) : *joined);
  return joined.has_value();
}

void copy_value(const Plan& plan, const SafetensorsFolder& folder) {
  Variable variable = plan.parameter->variable;
  if (variable.value().raw() == nullptr)
    variable.set_value(Tensor::empty(variable.shape(), variable.dtype()));
  const Tensor& value = variable.value();
  for (std::size_t i = 0; i < plan.stored.size(); ++i) {
    const Tensor view =
        plan.stacked ? value : plan.parameter->part_of(value, plan.parameter->parts[i]);
    const Tensor stored = folder.get(plan.stored[i]);
    view.copy_from(plan.stacked ? plan.parameter->share_of(stored) : stored);
    folder.release(plan.stored[i]);
  }
  value.mark_modified();
}

/// Moves what nobody needs from the names that the model does not have, and says so.
void leave_out_computed(const std::filesystem::path& path, const SafetensorsFolder& folder,
                        LoadReport& report) {
  const auto keep = std::stable_partition(
      report.skipped.begin(), report.skipped.end(),
      [&](const std::string& name) { return !is_computed_anew(name, folder.shape_of(name)); });
  report.computed.assign(keep, report.skipped.end());
  report.skipped.erase(keep, report.skipped.end());
  if (!report.computed.empty())
    notice(fmt::format("{}: left out {}, which lectern computes itself ({} such tensors)",
                       path.string(), report.computed[0], report.computed.size()));
}

/// What the folder has beside the plans' tensors. With `strict` what no model has is refused.
LoadReport report_rest(const std::filesystem::path& path, const Source& source,
                       const ParameterStore& store, bool strict) {
  LoadReport report;
  report.skipped = source.foreign_to(store);
  leave_out_computed(path, source.folder(), report);
  if (strict && !report.skipped.empty())
    fail<IoError>(fmt::format("{}: tensor {} is not part of this model ({} such tensors)",
                              path.string(), report.skipped[0], report.skipped.size()));
  return report;
}

}  // namespace

LoadReport load_weights(ParameterStore& store, const std::filesystem::path& path,
                        const std::function<std::string(const std::string&)>& rename,
                        const std::vector<std::string>& prefixes, bool strict) {
  Source source(path, rename);
  // Two passes: everything is checked before the first value changes.
  std::vector<Plan> plans;
  for (const Parameter& parameter : store.parameters())
    if (wanted(parameter.name, prefixes)) plans.push_back(plan_for(parameter, source));
  LoadReport report = report_rest(path, source, store, strict && prefixes.empty());
  for (const Plan& plan : plans) {
    const auto tensors = static_cast<std::int64_t>(plan.stored.size());
    const bool may_map = store.values() == ParameterValues::absent;
    if (may_map && map_value(plan, source.folder()))
      report.mapped += tensors;
    else
      copy_value(plan, source.folder());
    report.loaded += tensors;
  }
  return report;
}

LoadReport load_weights(OcrModel& model, const std::filesystem::path& path,
                        const std::vector<std::string>& prefixes, bool strict) {
  return load_weights(
      model.store(), path,
      [&](const std::string& name) { return model.config().published_name(name); }, prefixes,
      strict);
}

StoredTensors::StoredTensors(const OcrModel& model, const std::filesystem::path& path) {
  Source source(path, [&](const std::string& name) { return model.config().published_name(name); });
  for (const Parameter& parameter : model.store().parameters()) {
    const Plan plan = plan_for(parameter, source);
    for (std::size_t i = 0; i < parameter.parts.size(); ++i)
      places_[parameter.parts[i].name] = {plan.stored[plan.stacked ? 0 : i], parameter,
                                          parameter.parts[i], plan.stacked};
  }
  report_rest(path, source, model.store(), true);
  folder_ = source.folder();
}

const StoredTensors::Place& StoredTensors::find(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end())
    fail<IoError>(fmt::format("weights: the model has no tensor {}", name));
  return found->second;
}

Tensor StoredTensors::get(const std::string& name) const {
  const Place& place = find(name);
  const Tensor stored = folder_.get(place.stored);
  return place.stacked ? place.parameter.part_of(place.parameter.share_of(stored), place.part)
                       : stored;
}

void StoredTensors::release(const std::string& name) const { folder_.release(find(name).stored); }

}  // namespace lectern
