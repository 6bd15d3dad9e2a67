// Reads photo-eyes, encoders, emergency stops and servo supplies at the pins of config.h.
#pragma once
#include "board.h"

namespace castline {
namespace sensors {

void begin();

// Returns the microseconds since the start: timer 5, extended to 32 bits. Wraps after 71.6 minutes.
uint32_t now_us();

// Returns whether the eyes have been sampled since the last call.
bool take_sampled();

// Passes all events of the sensors to the board's lanes. Must be called in every loop after Board::advance.
void read(Board& board);

}  // namespace sensors
}  // namespace castline
