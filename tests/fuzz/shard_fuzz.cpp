// Any bytes as a shard: pages that can be read, or an IoError of one line; nothing else. HDF5 reads
// files, not memory, so each input is written to one in memory (memfd).
#include "core/error.h"
#include "data/shards/shard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int file = memfd_create("shard", 0);
  if (file < 0 || ftruncate(file, 0) != 0 ||
      pwrite(file, data, size, 0) != static_cast<ssize_t>(size))
    std::abort();
  try {
    const lectern::Shard shard("/proc/self/fd/" + std::to_string(file));
    for (std::int64_t page = 0; page < shard.pages(); ++page) shard.read(page);
    shard.line_table();
    shard.word_table();
  } catch (const lectern::IoError& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
