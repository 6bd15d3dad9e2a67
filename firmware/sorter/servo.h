// Makes the servo pulses with hardware timers in fast PWM mode 14 (ICRn is the top). The pulses are exact to half a microsecond.
//
// A timer repeats the pulse every 20 ms. This period is called a frame here. There are two exceptions. A new width begins a new frame at
// once, because the gate would otherwise move up to 20 ms late. Shortly before a gate moves, no frame begins, because a pulse in progress
// (up to 2.4 ms) would delay the movement. So at each movement, one pulse comes 2 to 27 ms after the previous one instead of 20 ms. Data
// sheets of common servos allow this.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of a gate. Gate 1 has index 0.
void begin(uint8_t index, uint16_t pulse_us);

// Sends pulses of width `pulse_us`. Must be called in every round of the main loop. If the gate will have to move within kServoQuietUs, the
// caller sets `quiet` to true. Then the next pulse of the old width is delayed, because a pulse in progress would delay the movement.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

}  // namespace servo
}  // namespace castline
