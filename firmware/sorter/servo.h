// Makes the servo pulses with hardware timers (fast PWM mode 14). The pulses are exact to half a microsecond.
//
// Shortly before a gate moves, no pulse may begin, because it would delay the movement.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of a gate. Gate 1 has index 0. If `pulse_us` is 0, the pin stays low until send() is called.
void begin(uint8_t index, uint16_t pulse_us);

// Sends pulses of width `pulse_us`. Must be called in every round of the main loop. If `quiet` is true, the next pulse is delayed.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

// Sets the gate's pin to a level, for a solenoid valve or for a signal of the plant interface. The pulses stop until send() is called.
void set_level(uint8_t index, bool is_high);

}  // namespace servo
}  // namespace castline
