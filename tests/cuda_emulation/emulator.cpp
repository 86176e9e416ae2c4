#include "tests/cuda_emulation/emulator.h"

#include "tests/cuda_emulation/device_memory.h"
#include "tests/cuda_emulation/fiber.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

namespace lectern::emulation {
namespace {

constexpr int kWarp = 32;
constexpr int kNobody = -1, kSeveral = -2, kAtomics = -3;
constexpr unsigned kLargestBlock = 1024, kLargestGridY = 65535;
/// What a block can have on sm_80; sm_90 has 227 KiB.
constexpr std::size_t kLargestShared = 163 << 10;

enum class State { ready, at_barrier, in_warp, finished };

struct Thread {
  Fiber fiber;
  dim3 index;
  int number = 0;
  State state = State::ready;
  Site site{};
  // While in_warp.
  unsigned mask = 0;
  Collective kind = Collective::sync;
  void* argument = nullptr;
  std::uint32_t warp_epoch = 0;
  std::vector<std::function<void()>> open_copies;
  std::vector<std::vector<std::function<void()>>> copy_groups;
};

/// Who touched two bytes of shared memory last. Epochs are counted over all launches, one a
/// barrier, so that nothing needs to be cleared between blocks.
struct Cell {
  std::uint64_t write_epoch = 0, read_epoch = 0;
  std::uint32_t write_warp_epoch = 0, read_warp_epoch = 0;
  int writer = kNobody, reader = kNobody, reader_warp = kNobody;
  std::uint64_t copy_epoch = 0;  // of the copy under way, 0 for none
  int copier = kNobody;
};

struct Machine {
  std::vector<std::unique_ptr<Thread>> threads;
  int size = 0, finished = 0, waiting = 0;
  Thread* current = nullptr;
  const std::function<void()>* body = nullptr;
  std::exception_ptr error;
  std::uint64_t epoch = 1, first_epoch = 1;
  std::vector<std::byte> shared;
  std::size_t shared_bytes = 0;
  std::vector<Cell> cells;
  std::int64_t launches = 0;
  std::vector<const char*> names;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

std::string at(const dim3& index) { return fmt::format("({}, {}, {})", index.x, index.y, index.z); }

std::string at(const Site& site) {
  std::string_view file = site.file;
  if (const auto slash = file.rfind('/'); slash != std::string_view::npos)
    file.remove_prefix(slash + 1);
  return fmt::format("{}:{}", file, site.line);
}

const char* kernel_name(const Machine& m) { return m.names.empty() ? "kernel" : m.names.back(); }

void entry() {
  Machine& m = machine();
  Thread* self = m.current;
  self->fiber.entered();
  try {
    (*m.body)();
  } catch (...) {
    if (!m.error) m.error = std::current_exception();
  }
  self->state = State::finished;
  ++m.finished;
  self->fiber.leave_for_good();
}

[[noreturn]] void fail_at(const Machine& m, const Thread& thread, const std::string& what) {
  throw EmulationError(fmt::format("{}: block {} thread {}: {}", kernel_name(m), at(now.block),
                                   at(thread.index), what));
}

std::string_view name_of(Collective kind) {
  switch (kind) {
    case Collective::sync:
      return "__syncwarp";
    case Collective::shuffle:
      return "a shuffle";
    case Collective::vote:
      return "a vote";
    case Collective::multiply_tile:
      return "multiply_tile";
    case Collective::load_matrices:
      return "load_matrices";
  }
  return "?";
}

std::string describe_wait(const Thread& thread) {
  switch (thread.state) {
    case State::at_barrier:
      return fmt::format("waits at the barrier {}", at(thread.site));
    case State::in_warp:
      return fmt::format("waits in {} at {} (mask {:08x})", name_of(thread.kind), at(thread.site),
                         thread.mask);
    case State::finished:
      return "has returned";
    case State::ready:
      break;
  }
  return "runs";
}

/// No thread can go on: names two that wait for different things.
[[noreturn]] void fail_stuck(const Machine& m) {
  const Thread* waiting = nullptr;
  const Thread* other = nullptr;
  for (int i = 0; i < m.size; ++i) {
    const Thread& thread = *m.threads[static_cast<std::size_t>(i)];
    if (waiting == nullptr && thread.state != State::finished) waiting = &thread;
  }
  for (int i = 0; i < m.size && other == nullptr; ++i) {
    const Thread& thread = *m.threads[static_cast<std::size_t>(i)];
    const bool same = thread.state == waiting->state && thread.site.line == waiting->site.line;
    if (!same) other = &thread;
  }
  fail_at(m, *waiting,
          fmt::format("divergence: {}, and thread {} {}", describe_wait(*waiting),
                      other == nullptr ? "(none other)" : at(other->index),
                      other == nullptr ? "" : describe_wait(*other)));
}

void release_barrier(Machine& m) {
  const Thread& first = *m.threads[0];
  for (int i = 0; i < m.size; ++i) {
    Thread& thread = *m.threads[static_cast<std::size_t>(i)];
    if (thread.site.line != first.site.line || std::strcmp(thread.site.file, first.site.file) != 0)
      fail_at(m, first,
              fmt::format("divergence: {}, and thread {} {}", describe_wait(first),
                          at(thread.index), describe_wait(thread)));
  }
  for (int i = 0; i < m.size; ++i) m.threads[static_cast<std::size_t>(i)]->state = State::ready;
  m.waiting = 0;
  ++m.epoch;
}

void start_block(Machine& m) {
  m.finished = m.waiting = 0;
  m.first_epoch = ++m.epoch;
  std::memset(m.shared.data(), 0xff, m.shared_bytes);  // NaN, so that stale values show
  for (int i = 0; i < m.size; ++i) {
    Thread& thread = *m.threads[static_cast<std::size_t>(i)];
    const auto n = static_cast<unsigned>(i);
    const dim3& size = now.block_size;
    thread.index = dim3(n % size.x, n / size.x % size.y, n / (size.x * size.y));
    thread.number = i;
    thread.state = State::ready;
    thread.warp_epoch = 0;
    thread.open_copies.clear();
    thread.copy_groups.clear();
    thread.fiber.prepare(entry);
  }
}

void run_block(Machine& m, bool descending) {
  start_block(m);
  while (m.finished < m.size) {
    bool progressed = false;
    for (int i = 0; i < m.size; ++i) {
      Thread& thread = *m.threads[static_cast<std::size_t>(descending ? m.size - 1 - i : i)];
      if (thread.state != State::ready) continue;
      progressed = true;
      m.current = &thread;
      now.thread = thread.index;
      thread.fiber.resume();
      if (m.error) return;
      if (!thread.fiber.stack_is_whole()) fail_at(m, thread, "used more than its stack");
    }
    if (!progressed) fail_stuck(m);
  }
}

void check_launch(const Launch& launch) {
  const dim3 &grid = launch.grid, &block = launch.block;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > kLargestBlock || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
      grid.x > 0x7fffffffu || grid.y > kLargestGridY || grid.z > kLargestGridY || block.z > 64 ||
      launch.shared_bytes > kLargestShared)
    throw EmulationError(
        fmt::format("{}: no GPU launches grid {} of blocks {} with {} bytes shared",
                    kernel_name(machine()), at(grid), at(block), launch.shared_bytes));
}

}  // namespace

void report(const std::string& what) {
  const Machine& m = machine();
  if (m.current == nullptr) throw EmulationError(fmt::format("outside a kernel: {}", what));
  fail_at(m, *m.current, what);
}

void block_barrier(Site site) {
  Machine& m = machine();
  Thread& self = *m.current;
  self.state = State::at_barrier;
  self.site = site;
  if (++m.waiting == m.size)
    release_barrier(m);
  else
    self.fiber.leave();
}

int lane() { return machine().current->number % kWarp; }

void warp_collective(unsigned mask, Collective kind, void* argument,
                     const std::function<void(void* const*, unsigned)>& complete, Site site) {
  Machine& m = machine();
  Thread& self = *m.current;
  const int first = self.number / kWarp * kWarp;
  if ((mask >> (self.number - first) & 1u) == 0)
    report(
        fmt::format("{} at {}: mask {:08x} lacks the calling lane", name_of(kind), at(site), mask));
  self.state = State::in_warp;
  self.mask = mask;
  self.kind = kind;
  self.argument = argument;
  self.site = site;
  void* arguments[kWarp] = {};
  for (int i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1u) == 0) continue;
    if (first + i >= m.size)
      report(fmt::format("{} at {}: mask {:08x} names lanes that do not exist", name_of(kind),
                         at(site), mask));
    const Thread& other = *m.threads[static_cast<std::size_t>(first + i)];
    if (other.state != State::in_warp || other.kind != kind || other.mask != mask)
      return self.fiber.leave();  // the last lane to come does the work
    arguments[i] = other.argument;
  }
  complete(arguments, mask);
  for (int i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1u) == 0) continue;
    Thread& other = *m.threads[static_cast<std::size_t>(first + i)];
    other.state = State::ready;
    if (kind == Collective::sync) ++other.warp_epoch;
  }
}

void touch_shared(const void* element, Access access) {
  Machine& m = machine();
  const Thread& self = *m.current;
  const int warp = self.number / kWarp;
  Cell& cell =
      m.cells[static_cast<std::size_t>(static_cast<const std::byte*>(element) - m.shared.data()) /
              2];
  const auto name = [](int number) {
    return number >= 0 ? fmt::format("thread {}", number) : std::string("another thread");
  };
  if (cell.copy_epoch >= m.first_epoch) {
    if (access != Access::write || cell.copier != self.number)
      report(fmt::format("race: touches shared memory to which a copy of {} is under way",
                         name(cell.copier)));
    cell.copy_epoch = 0;  // the copy's end
  }
  const bool ordered_write =
      cell.writer >= 0 && cell.writer / kWarp == warp && cell.write_warp_epoch < self.warp_epoch;
  const bool foreign_write =
      cell.write_epoch == m.epoch && cell.writer != self.number && !ordered_write;
  const bool overwrites = access == Access::write || access == Access::begin_copy;
  if (!overwrites && cell.write_epoch < m.first_epoch)
    report("reads shared memory that no thread of the block has written");
  if (foreign_write && !(access == Access::atomic && cell.writer == kAtomics))
    report(fmt::format("race: {} shared memory that {} wrote, with no barrier between",
                       access == Access::read ? "reads" : "writes", name(cell.writer)));
  const bool ordered_read = cell.reader_warp == warp && cell.read_warp_epoch < self.warp_epoch;
  if (access == Access::read) {
    if (cell.read_epoch != m.epoch || ordered_read) {
      cell.read_epoch = m.epoch;
      cell.reader = self.number;
      cell.reader_warp = warp;
    } else {
      if (cell.reader != self.number) cell.reader = kSeveral;
      if (cell.reader_warp != warp) cell.reader_warp = kSeveral;
    }
    cell.read_warp_epoch = self.warp_epoch;
    return;
  }
  if (cell.read_epoch == m.epoch && cell.reader != self.number && !ordered_read)
    report(fmt::format("race: writes shared memory that {} read, with no barrier between",
                       name(cell.reader)));
  if (access == Access::begin_copy) {
    cell.copy_epoch = m.epoch;
    cell.copier = self.number;
    return;
  }
  cell.write_epoch = m.epoch;
  cell.writer = access == Access::atomic ? kAtomics : self.number;
  cell.write_warp_epoch = self.warp_epoch;
}

void* shared_memory(std::size_t offset, std::size_t bytes) {
  Machine& m = machine();
  if (offset + bytes > m.shared_bytes)
    report(fmt::format("takes {} bytes of shared memory at {}, the launch gave {}", bytes, offset,
                       m.shared_bytes));
  return m.shared.data() + offset;
}

void queue_copy(std::function<void()> copy) {
  machine().current->open_copies.push_back(std::move(copy));
}

void commit_copies() {
  Thread& self = *machine().current;
  self.copy_groups.push_back(std::move(self.open_copies));
  self.open_copies.clear();
}

void wait_copies(int groups_left) {
  Thread& self = *machine().current;
  while (static_cast<int>(self.copy_groups.size()) > groups_left) {
    for (const auto& copy : self.copy_groups.front()) copy();
    self.copy_groups.erase(self.copy_groups.begin());
  }
}

void run(const Launch& launch, const std::function<void()>& body) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  check_launch(launch);
  const DeviceAccess open;
  Machine& m = machine();
  ++m.launches;
  m.size = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  while (static_cast<int>(m.threads.size()) < m.size)
    m.threads.push_back(std::make_unique<Thread>());
  if (m.shared.size() < kLargestShared) {
    m.shared.resize(kLargestShared + 128);
    m.cells.resize(m.shared.size() / 2);
  }
  m.shared_bytes = launch.shared_bytes;
  m.body = &body;
  m.error = nullptr;
  now.block_size = launch.block;
  now.grid_size = launch.grid;
  struct Done {
    ~Done() { machine().current = nullptr; }
  } done;
  bool descending = false;
  for (unsigned z = 0; z < launch.grid.z; ++z)
    for (unsigned y = 0; y < launch.grid.y; ++y)
      for (unsigned x = 0; x < launch.grid.x; ++x) {
        now.block = dim3(x, y, z);
        run_block(m, descending);
        if (m.error) std::rethrow_exception(m.error);
        descending = !descending;
      }
}

void push_name(const char* name) { machine().names.push_back(name); }
void pop_name() { machine().names.pop_back(); }
std::int64_t launches() { return machine().launches; }

}  // namespace lectern::emulation
