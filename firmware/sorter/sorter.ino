// The firmware of Castline's board for the Arduino Mega 2560. See firmware/PROTOCOL.md and docs/wiring.md. The files:
//
//   hardware, link, sensors, servo           all access to registers
//   memory, reset_marks                      what a reset leaves unchanged: EEPROM, marks in RAM
//   board, commands, events, frame           the protocol
//   lane, lane_parts, lane_gate, faults,
//   settings                                 one lane
//   tracker, gate, eye                       parts between the photo-eyes, the gate, a photo-eye
//   end_switch, chute, button, contact       what confirms a gate's moves, a push-button, an on-off input
//   clock, place, text, crc16, config        time, positions, words in flash, checksum, pins and sizes
#include "board.h"
#include "hardware.h"

static castline::Board board;

void setup() { castline::hardware::begin(board); }

void loop() {
  castline::hardware::read(board);
  board.move_gates();
  castline::hardware::drive_gates(board);
  board.tick();
  castline::hardware::write(board);
}
