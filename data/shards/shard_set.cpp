#include "data/shards/shard_set.h"

#include "core/error.h"
#include "core/io/file.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <future>
#include <list>
#include <mutex>
#include <unordered_map>

namespace lectern {
namespace {

constexpr std::size_t kOpenShards = 32;
constexpr std::int64_t kTextCacheBytes = std::int64_t{32} << 20;

using PagePointer = std::shared_ptr<const DecodedPage>;

std::vector<std::filesystem::path> shard_files(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (auto entry = std::filesystem::directory_iterator(folder, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("shard-") && name.ends_with(".h5")) files.push_back(entry->path());
  }
  if (error)
    fail<IoError>(fmt::format("{}: cannot be listed: {}", folder.string(), error.message()));
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    const bool parent = std::filesystem::exists(folder / "manifest.json", error);
    fail<IoError>(fmt::format("{}: must hold shard-*.h5, got none{}", folder.string(),
                              parent ? " (name its folder train or validation)" : ""));
  }
  return files;
}

/// A shard that the manifest names and the folder lacks would silently shorten the data.
void check_manifest(const std::filesystem::path& folder,
                    const std::vector<std::filesystem::path>& files) {
  const std::filesystem::path absolute = std::filesystem::absolute(folder).lexically_normal();
  const std::filesystem::path plain = absolute.has_filename() ? absolute : absolute.parent_path();
  const std::filesystem::path manifest = plain.parent_path() / "manifest.json";
  std::error_code error;
  if (!std::filesystem::exists(manifest, error)) return;
  const nlohmann::json root = parse_json(read_file(manifest), manifest.string());
  const auto pointer = nlohmann::json::json_pointer("/splits") / plain.filename().string();
  if (!root.is_object() || !root.contains(pointer / "shards")) return;
  const nlohmann::json& listed = root[pointer / "shards"];
  std::vector<std::string> names;
  for (const nlohmann::json& shard : listed)
    if (shard.is_object() && shard.contains("file") && shard["file"].is_string())
      names.push_back(shard["file"].get<std::string>());
  std::sort(names.begin(), names.end());
  const bool same =
      names.size() == files.size() &&
      std::equal(names.begin(), names.end(), files.begin(),
                 [](const std::string& name, const auto& file) { return file.filename() == name; });
  if (!same)
    fail<IoError>(fmt::format("{}: {} names {} shards, the folder holds {} or others",
                              folder.string(), manifest.string(), names.size(), files.size()));
}

DecodedPage decode_page(const Shard& shard, std::int64_t index) {
  DecodedPage out{shard.read(index), true, {}};
  const std::string name = fmt::format("{}: page {} ({})", shard.name(), index, out.page.id);
  Image image = decode_image(out.page.picture, name);
  if (image.width != out.page.width || image.height != out.page.height)
    fail<IoError>(fmt::format("{}: image must be {} x {}, got {} x {}", name, out.page.width,
                              out.page.height, image.width, image.height));
  out.page.picture = {};
  const std::size_t pixels = image.pixels.size() / 3;
  const std::uint8_t* in = image.pixels.data();
  for (std::size_t i = 0; i < pixels && out.grey; ++i)
    out.grey = in[3 * i] == in[3 * i + 1] && in[3 * i] == in[3 * i + 2];
  if (!out.grey) {
    out.pixels = std::move(image.pixels);
    return out;
  }
  out.pixels.resize(pixels);
  for (std::size_t i = 0; i < pixels; ++i) out.pixels[i] = in[3 * i];
  return out;
}

/// Least recently used pages; a page that several threads ask for is decoded once.
class PageCache {
 public:
  explicit PageCache(std::int64_t limit) : limit_(limit) {}

  template <typename F>
  PagePointer get(std::int64_t key, F&& decode) {
    std::promise<PagePointer> promise;
    std::shared_future<PagePointer> future;
    bool mine = false;
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = entries_.find(key); found != entries_.end()) {
        order_.splice(order_.begin(), order_, found->second.place);
        future = found->second.page;
      } else {
        mine = true;
        future = promise.get_future().share();
        order_.push_front(key);
        entries_.emplace(key, Entry{future, order_.begin(), 0});
      }
    }
    if (!mine) return future.get();
    try {
      promise.set_value(std::make_shared<const DecodedPage>(decode()));
    } catch (...) {
      promise.set_exception(std::current_exception());
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(key);
      order_.erase(found->second.place);
      entries_.erase(found);
      throw;
    }
    keep(key, future.get()->bytes());
    return future.get();
  }

 private:
  struct Entry {
    std::shared_future<PagePointer> page;
    std::list<std::int64_t>::iterator place;
    std::int64_t bytes = 0;  // 0 while it is being decoded
  };

  void keep(std::int64_t key, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    entries_.at(key).bytes = bytes;
    held_ += bytes;
    auto oldest = order_.end();
    while (held_ > limit_ && oldest != order_.begin()) {
      --oldest;
      const auto found = entries_.find(*oldest);
      if (*oldest == key || found->second.bytes == 0) continue;
      held_ -= found->second.bytes;
      oldest = order_.erase(oldest);
      entries_.erase(found);
    }
  }

  std::int64_t limit_;
  std::int64_t held_ = 0;
  std::mutex mutex_;
  std::list<std::int64_t> order_;  // most recent first
  std::unordered_map<std::int64_t, Entry> entries_;
};

}  // namespace

std::int64_t DecodedPage::bytes() const {
  const auto units = [](const TextUnits& u) {
    return u.texts.values.size() + 4 * u.ids.values.size() + 32 * u.boxes.size();
  };
  return static_cast<std::int64_t>(sizeof(DecodedPage) + pixels.size() + page.text.size() +
                                   4 * page.ids.size() + units(page.lines) + units(page.words));
}

Image DecodedPage::crop(std::int64_t left, std::int64_t top, std::int64_t width,
                        std::int64_t height) const {
  Image out = make_image(width, height);
  const std::int64_t begin = std::max<std::int64_t>(left, 0);
  const std::int64_t end = std::min(left + width, page.width);
  for (std::int64_t y = std::max<std::int64_t>(top, 0);
       y < std::min(top + height, page.height) && begin < end; ++y) {
    std::uint8_t* to = out.row(y - top) + 3 * (begin - left);
    if (!grey) {
      std::memcpy(to, pixels.data() + (y * page.width + begin) * 3,
                  static_cast<std::size_t>(end - begin) * 3);
      continue;
    }
    const std::uint8_t* from = pixels.data() + y * page.width + begin;
    for (std::int64_t x = 0; x < end - begin; ++x)
      to[3 * x] = to[3 * x + 1] = to[3 * x + 2] = from[x];
  }
  return out;
}

struct ShardSet::State {
  struct PageFacts {
    std::int32_t width, height, tokens, prompt_tokens;  // -1: no prompt
  };

  State(const std::filesystem::path& path, std::int64_t cache_bytes)
      : folder(path), files(shard_files(path)), cache(cache_bytes) {}

  std::filesystem::path folder;
  std::vector<std::filesystem::path> files;
  std::string tokenizer_sha256;
  std::vector<std::int64_t> first_page{0};
  std::vector<PageFacts> facts;
  bool holds_pairs = true;
  PageCache cache;
  PageCache texts{kTextCacheBytes};
  std::mutex mutex;
  std::list<std::pair<std::size_t, std::shared_ptr<const Shard>>> open;  // most recent first

  std::shared_ptr<const Shard> shard(std::size_t index) {
    const std::lock_guard lock(mutex);
    for (auto at = open.begin(); at != open.end(); ++at) {
      if (at->first != index) continue;
      open.splice(open.begin(), open, at);
      return at->second;
    }
    if (open.size() == kOpenShards) open.pop_back();
    open.emplace_front(index, std::make_shared<const Shard>(files[index]));
    return open.front().second;
  }

  /// The shard that holds a page, and the page's index in it.
  std::pair<std::shared_ptr<const Shard>, std::int64_t> locate(std::int64_t page) {
    if (page < 0 || page >= first_page.back())
      fail<IoError>(fmt::format("{}: page must be in 0 .. {}, got {}", folder.string(),
                                first_page.back() - 1, page));
    const auto after = std::upper_bound(first_page.begin(), first_page.end(), page);
    const auto index = static_cast<std::size_t>(after - first_page.begin()) - 1;
    return {shard(index), page - first_page[index]};
  }
};

ShardSet::ShardSet(const std::filesystem::path& folder, std::int64_t cache_bytes)
    : state_(std::make_unique<State>(folder, cache_bytes)) {
  check_manifest(folder, state_->files);
  for (std::size_t i = 0; i < state_->files.size(); ++i) {
    const auto shard = state_->shard(i);
    if (i == 0) state_->tokenizer_sha256 = shard->tokenizer_sha256();
    if (shard->tokenizer_sha256() != state_->tokenizer_sha256)
      fail<IoError>(fmt::format("{}: tokenizer_sha256 must be {} as in {}, got {}", shard->name(),
                                state_->tokenizer_sha256, state_->files[0].filename().string(),
                                shard->tokenizer_sha256()));
    if (shard->lines() > 0 || shard->pages() == 0 || shard->describe(0).kind == ShardPage().kind)
      state_->holds_pairs = false;
    for (std::int64_t page = 0; page < shard->pages(); ++page) {
      const auto [width, height] = shard->size(page);
      state_->facts.push_back({static_cast<std::int32_t>(width), static_cast<std::int32_t>(height),
                               static_cast<std::int32_t>(shard->token_count(page)),
                               static_cast<std::int32_t>(shard->prompt_tokens(page).value_or(-1))});
    }
    state_->first_page.push_back(state_->first_page.back() + shard->pages());
  }
}

ShardSet::~ShardSet() = default;
const std::filesystem::path& ShardSet::folder() const { return state_->folder; }
const std::string& ShardSet::tokenizer_sha256() const { return state_->tokenizer_sha256; }
std::int64_t ShardSet::pages() const { return state_->first_page.back(); }
std::int64_t ShardSet::shards() const { return static_cast<std::int64_t>(state_->files.size()); }
bool ShardSet::holds_pairs() const { return state_->holds_pairs; }
const std::vector<std::int64_t>& ShardSet::first_page() const { return state_->first_page; }

std::shared_ptr<const Shard> ShardSet::shard(std::int64_t index) const {
  return state_->shard(static_cast<std::size_t>(index));
}

PagePointer ShardSet::read(std::int64_t page) const {
  return state_->texts.get(page, [&] {
    const auto [shard, at] = state_->locate(page);
    return DecodedPage{shard->read(at, false), true, {}};
  });
}

std::int64_t ShardSet::token_count(std::int64_t page) const {
  return state_->facts.at(static_cast<std::size_t>(page)).tokens;
}

std::optional<std::int64_t> ShardSet::prompt_tokens(std::int64_t page) const {
  const std::int32_t tokens = state_->facts.at(static_cast<std::size_t>(page)).prompt_tokens;
  return tokens < 0 ? std::nullopt : std::optional<std::int64_t>(tokens);
}

std::array<std::int64_t, 2> ShardSet::size(std::int64_t page) const {
  const auto& facts = state_->facts.at(static_cast<std::size_t>(page));
  return {facts.width, facts.height};
}

std::shared_ptr<const DecodedPage> ShardSet::decoded(std::int64_t page) const {
  return state_->cache.get(page, [&] {
    const auto [shard, at] = state_->locate(page);
    return decode_page(*shard, at);
  });
}

}  // namespace lectern
