// Pins, sizes, and times that no setting changes. docs/wiring.md has a drawing of the pins.
// Values that differ from belt to belt are settings of the protocol, which the EEPROM stores.
#pragma once
#include <stdint.h>

namespace castline {

// ---- sizes -------------------------------------------------------------------------------------------------------
// Lanes, each with two photo-eyes and a gate.
const uint8_t kLanes = 4;
// Largest number of parts between the eyes of one belt. 64 parts are 6.4 s at 10 parts per second.
const uint8_t kParts = 64;
// Largest number of parts of one belt between photo-eye 2 and the moment of the gate.
const uint8_t kArmed = 3;
// 1 means that a lane can be a further gate of another lane's belt (`lane_of`).
const uint8_t kGrades = 1;
// Largest number of events that wait for the host's acknowledgement.
const uint8_t kEvents = 64;
// Largest number of unanswered commands.
const uint8_t kWindow = 4;
// Size of the receive buffer in bytes. kWindow commands of 60 bytes fit into it.
const uint16_t kReceiveRing = 256;

// ---- the link ----------------------------------------------------------------------------------------------------
// A Mega with 16 MHz sends 2.1 % faster than this. A receiver tolerates 4.5 %.
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
// Time between two stored events on the line. See PROTOCOL.md, "Flow".
const uint16_t kEventIntervalMs = 10;
// Only this many of the oldest events are repeated.
const uint8_t kMaxRepeatedEvents = 4;
// Each step of the command TEST takes this long.
const uint16_t kTestMs = 1000;
// Servo pulse without stored settings: the middle of the servo's travel.
const uint16_t kNeutralUs = 1500;
// 50 pulses a second, which every hobby servo accepts.
const uint16_t kServoFrameUs = 20000;
// If a gate must move within this time, no servo pulse begins and no gate returns (see servo.h). Longer than two pulses.
const uint16_t kServoQuietUs = 4500;
// Interval at which the eyes are sampled: a fifth of the 1 ms by which a gate may be late.
const uint16_t kEyeSampleUs = 200;
// A part that is longer between the eyes is reported with this age, because 16 bits hold 65.5 s.
const uint16_t kMaxAgeMs = 65000;

// First value of the microsecond counter. A test sets another value, because the counter wraps only after 71 minutes.
#ifndef CASTLINE_CLOCK_START_US
#define CASTLINE_CLOCK_START_US 0UL
#endif

// ---- pins of the Arduino Mega 2560 -------------------------------------------------------------------------------
// A pin is named by port and bit (PA0) and by the number on the board (D22).
// All inputs have pull-ups. The levels below are chosen so that a broken wire shows as a fault. A photo-eye with a dark-switching output
// and an optocoupler reads low while it is blocked. The emergency-stop chain pulls its pin low while it is closed. The servo's supply
// makes its pin high through a voltage divider.
const bool kEyeBlockedLevel = false;
const bool kEstopOpenLevel = true;
const bool kServoPowerLevel = true;

// Servo pulses come from the 16-bit timers, so they are exact to half a microsecond:
//   gate 1 OC4A = D6,  gate 2 OC1A = D11,  gate 3 OC3A = D5,  gate 4 OC4B = D7 (on the same timer as gate 1)
// A further gate (a lane with `lane_of`) uses only its servo pulse and the input for its servo's supply.
// Timer 5 is the clock. Its capture unit takes the times of photo-eye 2 of lane 1: ICP5 = PL1 = D48.
// The other photo-eyes are sampled on port A: eye 1 of lanes 1..4 = PA0, PA2, PA4, PA6 = D22, D24, D26, D28;
//                                   eye 2 of lanes 2..4 =      PA3, PA5, PA7 =      D25, D27, D29.
// Encoders, phases A and B: lane 1 INT4, INT5 = PE4, PE5 = D2, D3;   lane 2 INT3, INT2 = PD3, PD2 = D18, D19;
//                           lane 3 INT1, INT0 = PD1, PD0 = D20, D21; lane 4 PCINT4, PCINT6 = PB4, PB6 = D10, D12.
// Port C: emergency stop of lanes 1..4 = PC7..PC4 = D30..D33, servo supply of lanes 1..4 = PC3..PC0 = D34..D37.
// Port F: camera triggers of lanes 1..4 = PF0..PF3 = A0..A3, belt relays of lanes 1..4 = PF4..PF7 = A4..A7.
// Lamps, green yellow red: lane 1 PK0..PK2 = A8..A10, lane 2 PK4..PK6 = A12..A14,
//                          lane 3 PL7..PL5 = D42..D44, lane 4 PL4..PL2 = D45..D47.
// D0 and D1 are the serial line to the host. The LED at D13 blinks while the main loop runs.

}  // namespace castline
