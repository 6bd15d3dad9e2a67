// Makes the servo pulses with hardware timers (fast PWM mode 14), exact to half a microsecond.
//
// Shortly before a gate moves, no pulse begins, because the pulse would delay the movement.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of a gate. Gate 1 has index 0.
void begin(uint8_t index, uint16_t pulse_us);

// Sends pulses of width `pulse_us`. Must be called in every round of the main loop. `quiet` delays the next pulse, if the gate will move
// soon.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

}  // namespace servo
}  // namespace castline
