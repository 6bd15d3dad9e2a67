// The checksum CRC-16/IBM-3740: polynomial 0x1021, first value 0xFFFF, not reflected, no final xor. The checksum of "123456789" is 0x29B1.
#pragma once
#include <stdint.h>

namespace castline {

const uint16_t kCrcFirst = 0xFFFF;

// Adds a byte to the checksum, as _crc_xmodem_update of avr-libc does. Uses no table, because a table of 512 bytes would save only
// 15 us per frame.
inline uint16_t crc16(uint16_t crc, uint8_t byte) {
  uint8_t x = static_cast<uint8_t>((crc >> 8) ^ byte);
  x = static_cast<uint8_t>(x ^ x >> 4);
  return static_cast<uint16_t>((crc << 8) ^ (static_cast<uint16_t>(x) << 12) ^ (static_cast<uint16_t>(x) << 5) ^ x);
}

}  // namespace castline
