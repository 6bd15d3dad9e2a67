// Makes the servo pulses with hardware timers in fast PWM mode 14 (ICRn is the top). They are exact to half a microsecond.
//
// A timer repeats the pulse every 20 ms, which is called a frame here. A new width would have to wait up to 20 ms for the next frame, so a
// change begins a new frame at once. Shortly before a gate moves, no frame begins, because a pulse in progress (up to 2.4 ms) would delay
// the movement. Servos accept that: the distance of two frames is then 2 to 27 ms once.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of gate `index`, which begins with 0.
void begin(uint8_t index, uint16_t pulse_us);

// Sends pulses of this width. Must be called in every loop. `quiet` says that the gate must move within kServoQuietUs.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

}  // namespace servo
}  // namespace castline
