#include "tests/cuda_emulation/fiber.h"

#include <cstdint>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom,
                                               std::size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom_old,
                                                std::size_t* bytes_old);
#else
namespace {
void __sanitizer_start_switch_fiber(void**, const void*, std::size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*) {}
}  // namespace
#endif

#if defined(__x86_64__)
// Saves what a callee must keep on the stack it leaves and takes it from the stack it enters.
extern "C" void lectern_switch_stack(void** left, void* entered);
asm(R"(
.text
.globl lectern_switch_stack
.type lectern_switch_stack, @function
lectern_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lectern_switch_stack, .-lectern_switch_stack
)");
#endif

namespace lectern::emulation {
namespace {
constexpr std::uint64_t kCanary = 0x5ca1ab1e0ddba11u;
}

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {
  std::memcpy(stack_.get(), &kCanary, sizeof kCanary);
}

bool Fiber::stack_is_whole() const {
  return std::memcmp(stack_.get(), &kCanary, sizeof kCanary) == 0;
}

#if defined(__x86_64__)

void Fiber::prepare(void (*entry)()) {
  // As if entry had been called: its address where `ret` looks, then a stack 8 bytes off 16.
  auto top = reinterpret_cast<std::uintptr_t>(stack_.get() + kStackBytes) / 16 * 16 - 16;
  auto* words = reinterpret_cast<void**>(top);
  words[0] = reinterpret_cast<void*>(entry);
  words[1] = nullptr;
  for (int i = 1; i <= 6; ++i) words[-i] = nullptr;
  inside_ = words - 6;
  fake_stack_inside_ = nullptr;
}

void Fiber::resume() {
  __sanitizer_start_switch_fiber(&fake_stack_outside_, stack_.get(), kStackBytes);
  lectern_switch_stack(&outside_, inside_);
  __sanitizer_finish_switch_fiber(fake_stack_outside_, nullptr, nullptr);
}

void Fiber::leave(bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_inside_, outside_bottom_,
                                 outside_bytes_);
  lectern_switch_stack(&inside_, outside_);
  entered();
}

#else

void Fiber::prepare(void (*entry)()) {
  getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_.get() + sizeof kCanary;
  inside_.uc_stack.ss_size = kStackBytes - sizeof kCanary;
  inside_.uc_link = nullptr;
  makecontext(&inside_, entry, 0);
  fake_stack_inside_ = nullptr;
}

void Fiber::resume() {
  __sanitizer_start_switch_fiber(&fake_stack_outside_, stack_.get(), kStackBytes);
  swapcontext(&outside_, &inside_);
  __sanitizer_finish_switch_fiber(fake_stack_outside_, nullptr, nullptr);
}

void Fiber::leave(bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_inside_, outside_bottom_,
                                 outside_bytes_);
  swapcontext(&inside_, &outside_);
  entered();
}

#endif

void Fiber::entered() {
  __sanitizer_finish_switch_fiber(fake_stack_inside_, &outside_bottom_, &outside_bytes_);
}

}  // namespace lectern::emulation
