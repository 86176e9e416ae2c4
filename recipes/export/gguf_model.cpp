#include "recipes/export/gguf_model.h"

#include "core/error.h"
#include "core/notice.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace lectern {
namespace {

/// A tensor of a file and the published ones that it is made of, in the order of its stack.
struct PlannedTensor {
  GgufEntry entry;
  std::vector<std::string> published;
};

/// Rows of other lengths than blocks take go to half precision, as llama.cpp's own tool has it.
GgufType fitting_type(const Shape& shape, const GgufTarget& target, GgufType wanted) {
  if (target.role == GgufRole::exact || shape.ndim() < 2) return GgufType::f32;
  return shape[shape.ndim() - 1] % block_values(wanted) == 0 ? wanted : GgufType::f16;
}

void put_in_stack(PlannedTensor& planned, const std::string& published, std::int64_t stack) {
  auto& list = planned.published;
  const auto place = static_cast<std::size_t>(std::max<std::int64_t>(stack, 0));
  if (list.size() <= place) list.resize(place + 1);
  if (!list[place].empty())
    fail<Error>(fmt::format("export: tensors {} and {} are both {}", list[place], published,
                            planned.entry.name));
  list[place] = published;
}

/// The tensors of every file, in the order in which the source has them.
std::vector<std::vector<PlannedTensor>> plan_of(const ExportSource& source,
                                                const std::vector<GgufContent>& contents) {
  std::vector<std::vector<PlannedTensor>> out(contents.size());
  std::vector<std::map<std::string, std::size_t>> places(contents.size());
  for (const auto& [name, shape] : source.tensors()) {
    std::size_t file = 0;
    std::optional<GgufTarget> target;
    while (file < contents.size() && !(target = gguf_target(contents[file].rules, name))) ++file;
    if (!target) fail<Error>(fmt::format("export: GGUF has no name for tensor {}", name));
    const auto [at, is_new] = places[file].emplace(target->name, out[file].size());
    if (is_new)
      out[file].push_back(
          {{target->name, fitting_type(shape, *target, contents[file].type), shape}, {}});
    put_in_stack(out[file][at->second], name, target->stack);
    if (target->stack < 0) continue;
    Shape& stacked = out[file][at->second].entry.shape;
    stacked = {static_cast<std::int64_t>(out[file][at->second].published.size())};
    for (const std::int64_t size : shape) stacked.push_back(size);
  }
  return out;
}

std::vector<GgufEntry> entries_of(const std::vector<PlannedTensor>& planned) {
  std::vector<GgufEntry> out;
  for (const PlannedTensor& each : planned) out.push_back(each.entry);
  return out;
}

void tell_what_did_not_fit(const GgufContent& content, const std::vector<PlannedTensor>& planned) {
  std::vector<std::string> names;
  for (const PlannedTensor& each : planned)
    if (each.entry.type == GgufType::f16 && content.type != GgufType::f16)
      names.push_back(each.entry.name);
  if (names.empty()) return;
  const std::size_t shown = std::min<std::size_t>(names.size(), 3);
  notice(fmt::format(
      "{}: {} of {} tensors are f16, because their rows are no multiples of {}: {}{}", content.file,
      names.size(), planned.size(), block_values(content.type),
      fmt::join(std::span(names).first(shown), ", "), names.size() > shown ? " ..." : ""));
}

/// Compares pieces of a source's tensor with what a file says of them.
class PieceCheck {
 public:
  PieceCheck(const GgufFile& file, const GgufEntry& entry) : file_(file), entry_(entry) {}

  /// Values of the file's tensor from `begin` on; false when one is too far off.
  bool holds(std::int64_t begin, std::span<const float> want) {
    read_.resize(want.size());
    file_.read(entry_.name, begin, read_);
    if (entry_.type == GgufType::f32)
      return std::memcmp(read_.data(), want.data(), want.size_bytes()) == 0;
    const auto block = static_cast<std::size_t>(block_values(entry_.type));
    for (std::size_t i = 0; i < want.size(); i += block) {
      float largest = 0;
      for (std::size_t j = i; j < i + block; ++j) largest = std::max(largest, std::abs(want[j]));
      for (std::size_t j = i; j < i + block; ++j) {
        const double off = std::abs(static_cast<double>(read_[j]) - static_cast<double>(want[j]));
        if (!(off <= error_bound(entry_.type, want[j], largest))) return false;
      }
    }
    return true;
  }

 private:
  const GgufFile& file_;
  const GgufEntry& entry_;
  std::vector<float> read_;
};

void verify_tensor(const ExportSource& source, const GgufFile& file, const PlannedTensor& planned,
                   const std::filesystem::path& path) {
  const GgufEntry& entry = planned.entry;
  const GgufEntry& found = file.entry(entry.name);
  bool equal = found.type == entry.type && found.shape == entry.shape;
  PieceCheck check(file, entry);
  std::int64_t first = 0;
  for (const std::string& name : planned.published) {
    const Tensor value = source.read(name);
    if (equal)
      for_each_piece(value, [&](std::int64_t begin, std::span<const float> values) {
        equal = equal && check.holds(first + begin, values);
      });
    first += value.numel();
    source.release(name);
  }
  file.release(entry.name);
  if (!equal)
    fail<IoError>(fmt::format("{}: tensor {} differs from the model after it was read back",
                              path.string(), entry.name));
}

}  // namespace

void GgufLimits::check() const {
  if (!reasons_.empty())
    fail<ConfigError>(fmt::format("export: llama.cpp has no such model (--format gguf): {}",
                                  fmt::join(reasons_, "; ")));
}

std::uint32_t gguf_file_type(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return 0;
    case GgufType::f16:
      return 1;
    case GgufType::q4_0:
      return 2;
    case GgufType::q8_0:
      return 7;
    case GgufType::bf16:
      break;
  }
  return 32;
}

void write_gguf(const ExportSource& source, const std::filesystem::path& folder,
                const std::vector<GgufContent>& contents) {
  const auto plan = plan_of(source, contents);
  for (std::size_t i = 0; i < contents.size(); ++i) {
    GgufWriter writer(folder / contents[i].file, contents[i].metadata, entries_of(plan[i]));
    for (const PlannedTensor& planned : plan[i])
      for (const std::string& name : planned.published) {
        for_each_piece(source.read(name),
                       [&](std::int64_t, std::span<const float> values) { writer.write(values); });
        source.release(name);
      }
    writer.commit();
    tell_what_did_not_fit(contents[i], plan[i]);
  }
}

void verify_gguf(const ExportSource& source, const std::filesystem::path& folder,
                 const std::vector<GgufContent>& contents) {
  const auto plan = plan_of(source, contents);
  for (std::size_t i = 0; i < contents.size(); ++i) {
    const auto path = folder / contents[i].file;
    const GgufFile file = GgufFile::open(path);
    if (file.metadata() != contents[i].metadata)
      fail<IoError>(fmt::format("{}: keys differ after they were read back", path.string()));
    if (file.entries().size() != plan[i].size())
      fail<IoError>(fmt::format("{}: must have {} tensors, got {} after it was read back",
                                path.string(), plan[i].size(), file.entries().size()));
    for (const PlannedTensor& planned : plan[i]) verify_tensor(source, file, planned, path);
  }
}

}  // namespace lectern
