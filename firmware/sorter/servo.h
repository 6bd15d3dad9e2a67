// Makes the servo pulses with hardware timers (fast PWM mode 14). The pulses are exact to half a microsecond.
//
// Shortly before a gate moves, no pulse is allowed to begin, because it would delay the movement.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of a gate. Gate 1 has index 0. If `pulse_us` is 0, the pin stays low until set_pulse() is called.
void begin(uint8_t index, uint16_t pulse_us);

// Sets the width of the pulses. Must be called in every round of the main loop.
void set_pulse(uint8_t index, uint16_t pulse_us);

// Sends a pulse as soon as possible if its width is new. Otherwise, delays the next pulse while `quiet` is true.
// Must be called in every round of the main loop. All gates must get their set_pulse() first, so that gates with a common timer get new
// widths together.
void time_pulse(uint8_t index, bool quiet);

// Returns true while a new pulse width waits for the end of a pulse in progress.
bool is_pulse_waiting();

// Sets the gate's pin to a level, for a solenoid valve or for a signal of the plant interface. A pulse in progress is finished first.
// The next call of set_pulse() starts the pulses again.
void set_level(uint8_t index, bool is_high);

}  // namespace servo
}  // namespace castline
