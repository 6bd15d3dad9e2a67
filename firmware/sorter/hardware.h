// Connects the class Board with the hardware of the Mega: sensors, servos, relays, lamps, triggers and the serial line.
#pragma once
#include "board.h"

namespace castline {
namespace hardware {

// Starts the hardware, beginning with the servo pulses for the rest position. Must be called once after a reset.
void begin(Board& board);
// Gives the board the present time, the changes at the sensors, and the received bytes.
void read(Board& board);
// Gives the gates' pins their servo pulses or levels. Must be called right after Board::move_gates(), so that no gate moves late.
void drive_gates(Board& board);
// Writes all outputs except those of the gates to the pins, sends a waiting frame, and stores changed settings. Then sleeps until the next
// interrupt.
void write(Board& board);

}  // namespace hardware
}  // namespace castline
