// Reads all inputs at the pins of config.h.
#pragma once
#include "board.h"

namespace castline {
namespace sensors {

void begin();

// Returns the microseconds since the start, as timer 5 counts them. They wrap after 71.6 minutes.
uint32_t now_us();

// Returns whether the photo-eyes on port A have been read since the last call.
bool take_sampled();

// Passes all changes at the sensors to the board's lanes. Must be called in every round of the main loop after Board::advance.
void read(Board& board);

}  // namespace sensors
}  // namespace castline
