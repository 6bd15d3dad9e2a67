// What survives a reset, in EEPROM: boot count and committed settings.
//
//   0..7     two copies of the boot count with its complement, written in turn: a power cut while one is written leaves the other
//   16..     for each lane 64 bytes: layout number, settings, CRC-16
#pragma once
#include "board.h"

namespace castline {
namespace memory {

// Counts this boot and gives its number, 1 to 65535 and round again.
uint16_t count_boot();

Stored read(uint8_t lane, Settings& settings);

// Stores what has been committed: one byte at a time, and only where it differs, since a byte takes 3.3 ms and cells wear.
void tick(Board& board);

}  // namespace memory
}  // namespace castline
