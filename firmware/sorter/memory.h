// The EEPROM. It holds the number of resets and the committed settings.
//
//   bytes 0..7   two copies of the number of resets, each with its inverted bits. A reset writes only the older copy, so that a power cut
//                cannot damage both.
//   bytes 16..   64 bytes for each lane: layout number, settings, CRC-16
#pragma once
#include "board.h"

namespace castline {
namespace memory {

// Increases the number of resets by one, and returns it: 1..65535. After 65535 comes 1.
uint16_t count_boot();

Stored read(uint8_t lane, Settings& settings);

// Stores committed settings in the EEPROM. Each call writes at most one byte (3.3 ms). Unchanged bytes are not written.
void tick(Board& board);

}  // namespace memory
}  // namespace castline
