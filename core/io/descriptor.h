// A file descriptor that is closed at the end of its scope. Private to this room.
#pragma once

#include <unistd.h>

namespace lectern {

class Descriptor {
 public:
  Descriptor() = default;
  /// Takes what open() gave; negative: none.
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return value_; }
  void reset(int value = -1) {
    if (value_ >= 0) ::close(value_);
    value_ = value;
  }

 private:
  int value_ = -1;
};

}  // namespace lectern
