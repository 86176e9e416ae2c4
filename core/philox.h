// Philox4x32-10 (Salmon et al., SC 2011), on CPU and GPU: four random 32-bit words for a 128-bit
// counter and a 64-bit key.
#pragma once

#include "core/host_device.h"

#include <cstdint>

namespace lectern::philox {

struct Words {
  std::uint32_t word[4];
};

LECTERN_HOST_DEVICE inline Words block(Words counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ key0,
                static_cast<std::uint32_t>(b),
                static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ key1,
                static_cast<std::uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace lectern::philox
