// Photo-eyes, encoders, emergency stop and servo supply, as they are at the pins of config.h.
#pragma once
#include "board.h"

namespace castline {
namespace sensors {

void begin();

// Microseconds since the start: timer 5, carried to 32 bits. Wraps after 71.6 minutes.
uint32_t now_us();

// Whether the eyes have been sampled since the last call.
bool take_sampled();

// Tells the board's lanes what happened up to now. To be called every loop, after Board::advance.
void read(Board& board);

}  // namespace sensors
}  // namespace castline
