// Servo pulses by hardware: fast PWM with ICRn as top (mode 14), exact to half a microsecond whatever the program does.
//
// The timers repeat the pulse 50 times a second, so a new width would by itself wait up to 20 ms for its turn. Therefore a change begins
// a new frame at once; and while a gate's moment is near no frame is begun, lest a pulse in progress (2.4 ms) delay it.
// No servo minds: frames are 2 to 27 ms apart instead of 20 for that one time.
#pragma once
#include <stdint.h>

namespace castline {
namespace servo {

// Starts the pulses of gate `index` (from 0) with this width.
void begin(uint8_t index, uint16_t pulse_us);

// To be called every loop. `quiet`: the gate's moment is nearer than kServoQuietUs.
void send(uint8_t index, uint16_t pulse_us, bool quiet);

}  // namespace servo
}  // namespace castline
