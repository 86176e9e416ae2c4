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
  Clock::time_point last = Clock::now();
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

}  // namespace

void start_profile() { active = std::make_unique<Profile>(); }

ProfileTables stop_profile() {
  if (active == nullptr) return {};
  ProfileTables out{sorted(active->marks), sorted(active->products)};
  active.reset();
  return out;
}

bool is_profiling() { return active != nullptr; }

void profile_mark(std::string_view phase, std::string_view operation) {
  if (active == nullptr) return;
  const Clock::time_point now = Clock::now();
  entry_of(active->marks, std::string(phase) + std::string(operation)).seconds +=
      seconds_between(active->last, now);
  active->last = now;
}

ProfileProduct::ProfileProduct(std::string_view name, double operations)
    : name_(name), operations_(operations) {
  if (active != nullptr) start_ = Clock::now();
}

ProfileProduct::~ProfileProduct() {
  if (active == nullptr) return;
  ProfileEntry& entry = entry_of(active->products, std::string(name_));
  entry.seconds += seconds_between(start_, Clock::now());
  entry.operations += operations_;
}

}  // namespace lectern
