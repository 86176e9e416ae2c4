// Where the time of a step goes. Off unless somebody asked (`lectern bench step --profile`,
// `lectern train --profile`); then a mark costs one read of the clock.
//
// Two tables, of the thread that called start_profile():
//   marks     the time since the mark before, by name: together they are all of the time
//   products  time, and multiplications and additions, of the matrix products, by name; nested in
//             the marks
// and, where asked for, each of them as a span of time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

struct ProfileEntry {
  std::string name;
  std::int64_t calls = 0;
  double seconds = 0;
  double operations = 0;  ///< floating-point; 0 for marks
};

/// Something that took time, in seconds since start_profile().
struct ProfileSpan {
  enum class Kind { mark, product, device };
  std::string name;
  Kind kind = Kind::mark;
  double begin = 0, seconds = 0;
};

struct ProfileTables {
  std::vector<ProfileEntry> marks, products;  ///< most time first
  std::vector<ProfileSpan> spans;             ///< in the order of their ends
};

/// Empties the tables and begins.
void start_profile(bool with_spans = false);
/// Ends it and returns what was found.
ProfileTables stop_profile();
bool is_profiling();
/// Seconds since start_profile(); 0 without.
double profile_clock();

/// Charges the time since the last mark to "<phase><operation>". Returns profile_clock() as of this
/// mark.
double profile_mark(std::string_view phase, std::string_view operation);

/// Times one product while it lives.
class ProfileProduct {
 public:
  /// operations: 2 m n k.
  ProfileProduct(std::string_view name, double operations);
  ~ProfileProduct();
  ProfileProduct(const ProfileProduct&) = delete;
  ProfileProduct& operator=(const ProfileProduct&) = delete;

 private:
  std::string_view name_;
  double operations_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace lectern
