// The one place where the board meets its pins: reset cause, watchdog, sensors in, servo, relay, lamp and camera out, serial line.
#pragma once
#include "board.h"

namespace castline {
namespace hardware {

void begin(Board& board);  // once, after a reset: servos to rest first, then everything else
void read(Board& board);   // time, sensors and bytes to the board
void write(Board& board);  // the board's outputs to the pins, one frame to the line, settings to the EEPROM; sleeps until something happens

}  // namespace hardware
}  // namespace castline
