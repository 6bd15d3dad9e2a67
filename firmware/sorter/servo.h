// Makes the servo pulses with hardware timers in fast PWM mode 14 (ICRn is the top), exact to half a microsecond.
//
// A timer repeats the pulse every 20 ms (a frame). A new width begins a new frame at once. Shortly before a gate moves, no frame begins,
// because a pulse in progress would delay the movement.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of a gate. Gate 1 has index 0.
void begin(uint8_t index, uint16_t pulse_us);

// Sends pulses of width `pulse_us`. Must be called in every round of the main loop. With `quiet`, because the gate will move soon, the
// next pulse of the old width is delayed.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

}  // namespace servo
}  // namespace castline
