// What is wired where, how much is held, and the times that no setting changes. docs/wiring.md draws the pins.
// Everything that differs from belt to belt is a setting of the protocol and lives in EEPROM instead.
#pragma once
#include <stdint.h>

namespace castline {

// ---- sizes -------------------------------------------------------------------------------------------------------
const uint8_t kLanes = 4;          // belts, each with two photo-eyes and a gate
const uint8_t kParts = 64;         // between the eyes of one belt: 10 parts a second for 6.4 s
const uint8_t kArmed = 3;          // past photo-eye 2 and not yet at the gate's moment, of one belt
const uint8_t kGrades = 1;         // a lane may be a further gate of another lane's belt (`lane_of`)
const uint8_t kEvents = 64;        // kept until the host acknowledges them
const uint8_t kWindow = 4;         // commands that may be unanswered at a time
const uint16_t kReceiveRing = 256; // bytes; kWindow commands of 60 bytes always fit

// ---- the link ----------------------------------------------------------------------------------------------------
const uint32_t kBaud = 115200;     // +2.1 % on a 16 MHz Mega, within the receiver's 4.5 %

// ---- times -------------------------------------------------------------------------------------------------------
const uint16_t kBootEveryMs = 1000;      // BOOT until HELLO; PROTOCOL.md, "Events"
const uint16_t kBeatEveryMs = 1000;      // BEAT after HELLO
const uint16_t kAnnounceEveryMs = 300;   // PART until SEEN
const uint16_t kRepeatEveryMs = 1000;    // GATE and FAULT until ACK
const uint16_t kEventIntervalMs = 10;        // between two kept events; PROTOCOL.md, "Flow"
const uint8_t kMaxRepeatedEvents = 4;      // the oldest ones only
const uint16_t kTestMs = 1000;           // each step of TEST
const uint16_t kNeutralUs = 1500;        // servo pulse when no settings are stored: the middle of its travel
const uint16_t kServoFrameUs = 20000;    // 50 pulses a second, what every hobby servo takes
const uint16_t kServoQuietUs = 4500;     // so near a gate's moment no pulse is begun and no return (see servo.h): longer than two pulses
const uint16_t kEyeSampleUs = 200;       // how often the eyes are sampled: a fifth of the 1 ms that the gate may be off
const uint16_t kMaxAgeMs = 65000;           // a part that is longer between the eyes is told as so old: 16 bits hold 65.5 s

// Where the microsecond counter begins. Another value lets a test see its wrap without waiting for 71 minutes.
#ifndef CASTLINE_CLOCK_START_US
#define CASTLINE_CLOCK_START_US 0UL
#endif

// ---- pins of the Arduino Mega 2560, as port and bit; the board's number stands beside ------------------------------
// Inputs have their pull-ups on. "Blocked", "open" and "absent" are levels given here, so a wire that breaks shows as a fault:
// eyes with dark-switching outputs through an optocoupler read low while blocked.
const bool kEyeBlockedLevel = false;
const bool kEstopOpenLevel = true;     // the chain pulls the pin low while all is well
const bool kServoPowerLevel = true;    // divider from the servo's supply

// Servo pulses come from the 16-bit timers, exact to half a microsecond whatever the program does:
//   gate 1 OC4A = D6,  gate 2 OC1A = D11,  gate 3 OC3A = D5,  gate 4 OC4B = D7 (shares timer 4 with gate 1)
// A lane that lends its gate to another lane's belt (`lane_of`) uses its servo pulse and the sense of its servo's supply alone.
// Timer 5 is the clock; its capture unit stamps photo-eye 2 of lane 1: ICP5 = PL1 = D48.
// Photo-eyes are sampled on port A: eye 1 of lanes 1..4 = PA0, PA2, PA4, PA6 = D22, D24, D26, D28;
//                                   eye 2 of lanes 2..4 =      PA3, PA5, PA7 =      D25, D27, D29.
// Encoders, phases A and B: lane 1 INT4, INT5 = PE4, PE5 = D2, D3;   lane 2 INT3, INT2 = PD3, PD2 = D18, D19;
//                           lane 3 INT1, INT0 = PD1, PD0 = D20, D21; lane 4 PCINT4, PCINT6 = PB4, PB6 = D10, D12.
// Port C: emergency stop of lanes 1..4 = PC7..PC4 = D30..D33, servo supply of lanes 1..4 = PC3..PC0 = D34..D37.
// Port F: camera triggers of lanes 1..4 = PF0..PF3 = A0..A3, belt relays of lanes 1..4 = PF4..PF7 = A4..A7.
// Lamps, green yellow red: lane 1 PK0..PK2 = A8..A10, lane 2 PK4..PK6 = A12..A14,
//                          lane 3 PL7..PL5 = D42..D44, lane 4 PL4..PL2 = D45..D47.
// D0 and D1 are the serial line to the host; the LED at D13 blinks while the loop runs.

}  // namespace castline
