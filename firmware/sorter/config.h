// Pins, sizes and times that are the same for all belts. All other values are settings. docs/wiring.md has a drawing of the pins.
#pragma once
#include <stdint.h>

namespace castline {

// ---- sizes -------------------------------------------------------------------------------------------------------
// Number of lanes. Each lane has two photo-eyes and a gate.
const uint8_t kLanes = 4;
// Largest number of parts between the eyes of one belt. At 10 parts per second, 64 parts are 6.4 s of travel.
const uint8_t kParts = 64;
// Largest number of parts that are between photo-eye 2 and the own gate of one belt.
const uint8_t kArmed = 3;
// 1 means that the gate of a lane can stand at another lane's belt (setting `lane_of`).
const uint8_t kGrades = 1;
// Largest number of events that wait for the host's acknowledgement.
const uint8_t kEvents = 64;
// Largest number of unanswered commands.
const uint8_t kWindow = 4;
// Size of the receive buffer in bytes. kWindow commands of 60 bytes fit into it.
const uint16_t kReceiveRing = 256;

// ---- the link ----------------------------------------------------------------------------------------------------
// The baud rate. A Mega with 16 MHz sends 2.1 % faster than this, which is within the 4.5 % that a receiver tolerates.
const uint32_t kBaud = 115200;

// ---- times -------------------------------------------------------------------------------------------------------
// BOOT is sent at this interval until HELLO arrives. See PROTOCOL.md, "Events".
const uint16_t kBootEveryMs = 1000;
// BEAT is sent at this interval after HELLO.
const uint16_t kBeatEveryMs = 1000;
// PART is repeated at this interval until SEEN arrives.
const uint16_t kAnnounceEveryMs = 300;
// GATE and FAULT are repeated at this interval until ACK arrives.
const uint16_t kRepeatEveryMs = 1000;
// After the board has sent a stored event, it waits at least this long before it sends the next one. See PROTOCOL.md, "Flow".
const uint16_t kEventIntervalMs = 10;
// Largest number of events that are sent again within kRepeatEveryMs. The oldest events are chosen.
const uint8_t kMaxRepeatedEvents = 4;
// Duration of a test (command TEST). The test of the lamp takes this time for each of its three colours.
const uint16_t kTestMs = 1000;
// Width of the servo pulse if no settings are stored: the middle of the servo's travel.
const uint16_t kNeutralUs = 1500;
// Time from one servo pulse to the next: 50 pulses a second, which every hobby servo accepts.
const uint16_t kServoFrameUs = 20000;
// For this time before a diverted part reaches the gate, a gate at rest gets no new pulse (see servo.h).
const uint16_t kServoQuietUs = 4500;
// Interval at which the photo-eyes are read. A gate may be 1 ms late, and the interval is a fifth of that.
const uint16_t kEyeSampleUs = 200;
// Largest age of a part that can be reported: 16 bits of milliseconds (65.5 s).
const uint16_t kMaxAgeMs = 65000;

// First value of the microsecond counter. A test sets a high value, because the counter wraps only after 71 minutes.
#ifndef CASTLINE_CLOCK_START_US
#define CASTLINE_CLOCK_START_US 0UL
#endif

// ---- pins of the Arduino Mega 2560 -------------------------------------------------------------------------------
// A pin is named by port and bit (PA0) and by the number on the board (D22). A broken wire reads high, because all inputs have pull-ups:
//   photo-eye       Low while a part blocks the eye. Broken: fault 41 or 42 after `lost_limit` parts.
//   emergency stop  Low while its contact is closed. Broken: fault 45 at once.
//   servo supply    High while the supply is on (divider of 4.7 and 10 kohm). Broken before the divider, it reads low: fault 44 at once.
//   encoder         Changes as the belt moves. Both phases broken: fault 43. One phase broken: no fault.
const bool kEyeBlockedLevel = false;
const bool kEstopOpenLevel = true;
const bool kServoPowerLevel = true;

// Servo pulses are made by the 16-bit timers, so they are exact to half a microsecond:
//   gate 1 OC4A = D6,  gate 2 OC1A = D11,  gate 3 OC3A = D5,  gate 4 OC4B = D7 (on the same timer as gate 1)
// A further gate (a lane whose setting `lane_of` is not 0) uses only the pins for its servo pulse and its servo's supply.

// Timer 5 is the clock. Its input-capture unit reads photo-eye 2 of lane 1: ICP5 = PL1 = D48.
// The other photo-eyes are read from port A every kEyeSampleUs:
//                                   eye 1 of lanes 1..4 = PA0, PA2, PA4, PA6 = D22, D24, D26, D28;
//                                   eye 2 of lanes 2..4 =      PA3, PA5, PA7 =      D25, D27, D29.

// Encoders, phases A and B: lane 1 INT4, INT5 = PE4, PE5 = D2, D3;   lane 2 INT3, INT2 = PD3, PD2 = D18, D19;
//                           lane 3 INT1, INT0 = PD1, PD0 = D20, D21; lane 4 PCINT4, PCINT6 = PB4, PB6 = D10, D12.

// Port C: emergency stop of lanes 1..4 = PC7..PC4 = D30..D33, servo supply of lanes 1..4 = PC3..PC0 = D34..D37.
// Port F: camera triggers of lanes 1..4 = PF0..PF3 = A0..A3, belt relays of lanes 1..4 = PF4..PF7 = A4..A7.
// Lamps, green yellow red: lane 1 PK0..PK2 = A8..A10, lane 2 PK4..PK6 = A12..A14,
//                          lane 3 PL7..PL5 = D42..D44, lane 4 PL4..PL2 = D45..D47.
// D0 and D1 are the serial line to the host. The LED at D13 blinks while the main loop runs.

}  // namespace castline
