#include "core/profile.h"

#include <algorithm>
#include <map>
#include <memory>

namespace lectern {
namespace {

using Clock = std::chrono::steady_clock;
using Table = std::map<std::string, ProfileEntry, std::less<>>;

struct Profile {
  Table marks, products;
  std::vector<ProfileSpan> spans;
  bool with_spans = false;
  Clock::time_point begin = Clock::now(), last = begin;
};

thread_local std::unique_ptr<Profile> active;

ProfileEntry& entry_of(Table& table, const std::string& name) {
  ProfileEntry& entry = table[name];
  if (entry.calls == 0) entry.name = name;
  ++entry.calls;
  return entry;
}

std::vector<ProfileEntry> sorted(const Table& table) {
  std::vector<ProfileEntry> out;
  for (const auto& [name, entry] : table) out.push_back(entry);
  std::stable_sort(out.begin(), out.end(), [](const ProfileEntry& a, const ProfileEntry& b) {
    return a.seconds > b.seconds;
  });
  return out;
}

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

void add_span(const std::string& name, ProfileSpan::Kind kind, Clock::time_point from,
              Clock::time_point to) {
  if (active->with_spans)
    active->spans.push_back(
        {name, kind, seconds_between(active->begin, from), seconds_between(from, to)});
}

}  // namespace

void start_profile(bool with_spans) {
  active = std::make_unique<Profile>();
  active->with_spans = with_spans;
}

ProfileTables stop_profile() {
  if (active == nullptr) return {};
  ProfileTables out{sorted(active->marks), sorted(active->products), std::move(active->spans)};
  active.reset();
  return out;
}

bool is_profiling() { return active != nullptr; }

double profile_clock() {
  return active == nullptr ? 0.0 : seconds_between(active->begin, Clock::now());
}

double profile_mark(std::string_view phase, std::string_view operation) {
  if (active == nullptr) return 0.0;
  const Clock::time_point now = Clock::now();
  const std::string name = std::string(phase) + std::string(operation);
  entry_of(active->marks, name).seconds += seconds_between(active->last, now);
  add_span(name, ProfileSpan::Kind::mark, active->last, now);
  active->last = now;
  return seconds_between(active->begin, now);
}

ProfileProduct::ProfileProduct(std::string_view name, double operations)
    : name_(name), operations_(operations) {
  if (active != nullptr) start_ = Clock::now();
}

ProfileProduct::~ProfileProduct() {
  if (active == nullptr) return;
  const Clock::time_point now = Clock::now();
  ProfileEntry& entry = entry_of(active->products, std::string(name_));
  entry.seconds += seconds_between(start_, now);
  entry.operations += operations_;
  add_span(std::string(name_), ProfileSpan::Kind::product, start_, now);
}

}  // namespace lectern
