// The EEPROM. It holds the number of resets, the committed settings, and the faults that a person must end.
//
//   bytes 0..7      the number of resets in two copies, each with its inverted bits. A reset writes only the older copy, so a power
//                   cut cannot damage both.
//   bytes 16..271   64 bytes for each lane: the layout number (see memory.cpp), the settings, CRC-16
//   bytes 272..303  8 bytes for each lane: two copies of its faults, with inverted bits. A fault in only one of the copies is valid, too.
//   bytes 512..767  64 more bytes for each lane, for settings and CRC-16 that do not fit into the first 64
#pragma once
#include "board.h"

namespace castline {
namespace memory {

// Increases the number of resets by one, and returns it: 1..65535. After 65535 comes 1.
uint16_t count_boot();

// Reads the settings and the faults of a lane.
void read(uint8_t lane, StoredLane& stored);

// Stores new faults and committed settings in the EEPROM. Each call writes at most one byte (3.3 ms). Unchanged bytes are not written.
void tick(Board& board);

}  // namespace memory
}  // namespace castline
