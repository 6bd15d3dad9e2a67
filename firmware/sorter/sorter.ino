// The firmware of Castline's board for the Arduino Mega 2560. See firmware/PROTOCOL.md and docs/wiring.md. The files:
//
//   hardware, link, sensors, servo       all access to registers
//   memory, reset_marks                  the EEPROM, and marks in RAM that a reset does not delete
//   board, commands, events, frame       the protocol
//   lane, lane_parts, lane_gate          one lane
//   faults, settings                     the faults and the settings of a lane
//   eye, tracker, drive                  a photo-eye, the parts between the photo-eyes, the speed of a belt without an encoder
//   gate, end_switch, chute              a gate, and the inputs that confirm its moves
//   camera, plant_interface              the camera pulses, and the signals for the plant's controller
//   contact, button                      an on-off input, and a push-button
//   clock, place, text, crc16, config    time, positions of the belt, words in flash, checksum, pins and sizes
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
