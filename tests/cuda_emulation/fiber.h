// A second stack to run on. x86-64 switches by hand (about 2 ns), other machines through ucontext.
#pragma once

#include <cstddef>
#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace lectern::emulation {

class Fiber {
 public:
  static constexpr std::size_t kStackBytes = 64 << 10;

  Fiber();
  /// The next resume() calls entry() on the fiber's stack; entry must end with leave_for_good().
  void prepare(void (*entry)());
  /// From the scheduler's stack; returns when the fiber calls leave() or leave_for_good().
  void resume();
  /// From the fiber's stack.
  void leave() { leave(false); }
  void leave_for_good() { leave(true); }
  /// False when the fiber has run over the end of its stack.
  bool stack_is_whole() const;
  /// First thing that entry() calls.
  void entered();

 private:
  void leave(bool for_good);

  std::unique_ptr<std::byte[]> stack_;
#if defined(__x86_64__)
  void* inside_ = nullptr;
  void* outside_ = nullptr;
#else
  ucontext_t inside_, outside_;
#endif
  // What the address sanitizer wants to know about stacks.
  void* fake_stack_inside_ = nullptr;
  void* fake_stack_outside_ = nullptr;
  const void* outside_bottom_ = nullptr;
  std::size_t outside_bytes_ = 0;
};

}  // namespace lectern::emulation
