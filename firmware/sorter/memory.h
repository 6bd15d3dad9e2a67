// The EEPROM, which keeps the number of resets and the committed settings over a reset.
//
//   bytes 0..7   two copies of the number of resets, each with its complement. They are written in turn, so that a power cut during a write
//                leaves one valid copy.
//   bytes 16..   64 bytes for each lane: layout number, settings, CRC-16
#pragma once
#include "board.h"

namespace castline {
namespace memory {

// Counts a reset and returns the new number, 1..65535. The number after 65535 is 1.
uint16_t count_boot();

Stored read(uint8_t lane, Settings& settings);

// Stores committed settings, one byte per call, because writing a byte takes 3.3 ms. Unchanged bytes are not written, because cells wear.
void tick(Board& board);

}  // namespace memory
}  // namespace castline
