// libFuzzer: any bytes as a safetensors file must open or throw IoError, never crash or hang.
// Built and run by scripts/fuzz.sh.
#include "core/io/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int descriptor = memfd_create("safetensors", MFD_CLOEXEC);
  if (descriptor < 0 || ::write(descriptor, data, size) != static_cast<ssize_t>(size)) {
    if (descriptor >= 0) ::close(descriptor);
    return 0;
  }
  try {
    const auto file = lectern::SafetensorsFile::open("/proc/self/fd/" + std::to_string(descriptor));
    unsigned sum = 0;
    for (const auto& name : file.names()) {
      const lectern::Tensor tensor = file.get(name);
      const auto* bytes = static_cast<const unsigned char*>(tensor.raw());
      for (std::size_t i = 0; i < tensor.bytes(); ++i) sum += bytes[i];  // every byte is readable
      if (tensor.describe().empty()) sum = 0;
    }
    [[maybe_unused]] volatile unsigned keep = sum;
  } catch (const lectern::IoError&) {
    // The documented answer to bytes that are no safetensors file; anything else is a finding.
  }
  ::close(descriptor);
  return 0;
}
