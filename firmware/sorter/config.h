// Pins, sizes and times that are the same for all belts. All other values are settings. docs/wiring.md has a drawing of the pins.
#pragma once
#include <stdint.h>

namespace castline {

// ---- sizes -------------------------------------------------------------------------------------------------------
// Number of lanes. Each lane has two photo-eyes and a gate.
const uint8_t kLanes = 4;
// Only the first kPlantLanes lanes can have a plant interface. The plant interface of lane n uses the pins of lane n + kPlantLanes.
const uint8_t kPlantLanes = 2;
// Largest number of parts between the photo-eyes of a belt. At 10 parts a second, 64 parts allow up to 6.4 s from eye to eye.
const uint8_t kParts = 64;
// Largest number of parts on their way from photo-eye 2 to the belt's own gate.
const uint8_t kArmed = 3;
// Largest number of diverted parts on their way from a gate to the eye in the chute.
const uint8_t kChuteParts = 8;
// Every board must have room for this many parts on their way to an additional gate (see PROTOCOL.md). This board has room for more.
const uint8_t kFurtherGateParts = 16;
// Largest number of camera pulses of one lane that can wait: one for each part between the photo-eyes.
const uint8_t kCameraPulses = kParts;
// 1 if a gate may stand at the belt of another lane (setting `lane_of`), otherwise 0.
const uint8_t kGrades = 1;
// Largest number of events that wait for the host's acknowledgement.
const uint8_t kEvents = 64;
// The host may send at most this many commands before the board has answered them.
const uint8_t kWindow = 4;
// Size of the receive buffer in bytes. kWindow commands of 60 bytes fit into it.
const uint16_t kReceiveRing = 256;

// ---- the link ----------------------------------------------------------------------------------------------------
// The baud rate. A Mega with 16 MHz sends 2.1 % too fast. A receiver tolerates 4.5 %.
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
// The board repeats only the oldest unacknowledged events. It repeats at most this many events in each period of kRepeatEveryMs.
const uint8_t kMaxRepeatedEvents = 4;
// If the board is reset less than kHostTalksMs after a frame of the host, it raises fault 46. A host that opens the serial port can reset
// the board, too. This normal reset raises no fault, because the host has sent no frame just before.
const uint16_t kHostTalksMs = 1000;
// A push-button must be pressed for at least this long, and released before kMaxPressMs. A longer press does nothing.
const uint16_t kMinPressMs = 50;
const uint16_t kMaxPressMs = 3000;
// After an order to move, a gate with an end switch has 2 x servo_ms + kEndMarginMs to reach its other end.
const uint16_t kEndMarginMs = 100;
// An intact gate leaves its end within servo_ms / 2 + contact_ms + kLeaveMarginMs after an order to move. kLeaveMarginMs is the longest
// time from the order to the servo's next pulse.
const uint16_t kLeaveMarginMs = 20;
// Duration of a test that the command TEST begins. The lamp test shows each of the three colours for this time.
const uint16_t kTestMs = 1000;
// The command SERVO sets the pulse width of the servo for this time. The host repeats the command while a person watches the gate.
const uint16_t kServoHoldMs = 5000;
// Width of the servo pulse if no settings are stored: the middle of the servo's travel.
const uint16_t kNeutralUs = 1500;
// Time from one servo pulse to the next: 50 pulses a second, which every hobby servo accepts.
const uint16_t kServoFrameUs = 20000;
// No servo pulse begins in the last kServoQuietUs before the gate moves out, because the pulse would delay the movement (see servo.h).
const uint16_t kServoQuietUs = 4500;
// The photo-eyes are read at this interval. The interval is short, because a photo-eye that is read late makes the gate move late.
const uint16_t kEyeSampleUs = 200;
// The main loop reads the inputs of a gate in every fourth round. If two consecutive readings find the same level, the time between them
// counts as time at this level, but at most kGateSampleUs.
const uint16_t kGateSampleUs = 4000;
// Largest age of a part that the board can report. 16 bits hold at most 65,535 ms.
const uint16_t kMaxAgeMs = 65000;

// First value of the microsecond counter. A test sets a high value, because the counter wraps only after 71 minutes.
#ifndef CASTLINE_CLOCK_START_US
#define CASTLINE_CLOCK_START_US 0UL
#endif

// ---- pins of the Arduino Mega 2560 -------------------------------------------------------------------------------
// A pin is named by port and bit (PA0) and by the number on the board (D22). All inputs have pull-ups, so a broken wire reads high:
//   photo-eye       If `eye_light_on` is 1: high while a part blocks the eye. A broken wire causes fault 41 or 42.
//                   If `eye_light_on` is 0: low while a part blocks the eye. A broken wire causes fault 41 or 42 after `lost_limit` parts.
//   emergency stop  Low while its contact is closed. A broken wire causes fault 45 at once.
//   servo supply    High while the supply is on. A wire that breaks before the voltage divider reads low and causes fault 44 at once.
//   belt signal     Low while the belt runs. If the wire is broken, castings cause fault 43, because the belt seems to stand.
//   encoder         Changes as the belt moves. A broken wire causes fault 43.
//   end switch      Low while the gate stands at one of its two ends. A broken wire causes fault 54.
//   chute eye       Like the photo-eyes of its belt. A broken wire causes fault 55 at the next diverted part.
//   chute full      Low while the chute has room. A broken wire causes fault 56.
//   push-button     Low while a person presses it. If its wire breaks, the board notices no presses.
//   reset, bypass   Low while the button of the plant interface is pressed, or its key is turned. A broken wire reads "off".
const bool kEstopOpenLevel = true;
const bool kServoPowerLevel = true;
const bool kBeltRunsLevel = false;
const bool kGateAtEndLevel = false;
const bool kChuteFullLevel = true;
const bool kButtonPressedLevel = false;
const bool kResetPressedLevel = false;
const bool kBypassOnLevel = false;

// The 16-bit timers make the servo pulses, exact to half a microsecond. The outputs of timers and their pins:
//   gate 1  OC4A = D6
//   gate 2  OC1A = D11
//   gate 3  OC3A = D5
//   gate 4  OC4B = D7 (on the same timer as gate 1)
//
// An additional gate (a lane whose setting `lane_of` is not 0) uses only these pins: servo pulse, servo supply, end switch, chute and
// push-button.

// Timer 5 is the clock. It also reads photo-eye 2 of lane 1, at its input-capture pin PL1 = D48.
// Port A has all other photo-eyes, which are read every kEyeSampleUs:
//   photo-eye 1 of lanes 1 to 4   PA0 = D22, PA2 = D24, PA4 = D26, PA6 = D28
//   photo-eye 2 of lanes 2 to 4   PA3 = D25, PA5 = D27, PA7 = D29

// The encoders' phases A and B, with the interrupts of these pins:
//   lane 1   A: PE4 = D2 (INT4)      B: PE5 = D3 (INT5)
//   lane 2   A: PD3 = D18 (INT3)     B: PD2 = D19 (INT2)
//   lane 3   A: PD1 = D20 (INT1)     B: PD0 = D21 (INT0)
//   lane 4   A: PB4 = D10 (PCINT4)   B: PB6 = D12 (PCINT6)

// The other inputs and outputs of lanes 1 to 4:
//   emergency stops   PC7 to PC4 = D30 to D33
//   servo supplies    PC3 to PC0 = D34 to D37
//   belt signals      PD7, PG2, PG1, PG0 = D38 to D41
//   camera triggers   PF0 to PF3 = A0 to A3
//   belt relays       PF4 to PF7 = A4 to A7
// The lamps of each lane (green, yellow, red):
//   lane 1   PK0 to PK2 = A8 to A10
//   lane 2   PK4 to PK6 = A12 to A14
//   lane 3   PL7 to PL5 = D42 to D44
//   lane 4   PL4 to PL2 = D45 to D47
// The inputs of the gates and chutes, for lanes 1 to 4:
//   end switches   PH5 = D8, PH6 = D9, PH1 = D16, PH0 = D17
//   chute eyes     PB3 = D50, PB2 = D51, PB1 = D52, PB0 = D53
//   chute full     PJ1 = D14, PJ0 = D15, PK3 = A11, PK7 = A15
//   push-buttons   PG5 = D4, PA1 = D23, PL0 = D49, PB7 = D13
// The plant interface of lane 1 uses pins of lane 3. The plant interface of lane 2 uses pins of lane 4 (setting `use_plant`).
//   signal         usual use of the pin               lane 1   lane 2
//   ready          belt relay                         A6       A7
//   result valid   camera trigger                     A2       A3
//   reject         servo pulse                        D5       D7
//   busy           lamp green                         D42      D45
//   buzzer         lamp yellow                        D43      D46
//   fault          lamp red                           D44      D47
//   heartbeat      servo supply (here as an output)   D36      D37
//   reset          emergency stop                     D32      D33
//   bypass         belt signal                        D40      D41
// D0 and D1 are the serial line to the host. The LED at D13 blinks while the main loop runs, if lane 4 has no push-button.

}  // namespace castline
