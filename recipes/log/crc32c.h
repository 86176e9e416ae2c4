// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), as in RFC 3720 appendix B.4.
#pragma once

#include <cstdint>
#include <string_view>

namespace lectern {

/// Checksum of `bytes`; the empty string gives 0.
std::uint32_t crc32c(std::string_view bytes);

/// The masked form that TFRecord files store: rotated right by 15 bits, plus 0xa282ead8.
inline std::uint32_t masked_crc32c(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

}  // namespace lectern
