// The firmware of Castline's board for the Arduino Mega 2560. Each round of the main loop reads the inputs (hardware.cpp), lets the board
// decide (board.cpp), and writes the outputs (hardware.cpp).
//
// What the firmware does is described in firmware/PROTOCOL.md, and what is connected to which pin in docs/wiring.md and config.h.
// The files, from the outside to the inside:
//   hardware, link, sensors, servo, memory   pins, serial line, photo-eyes and encoders, servo pulses, EEPROM: all access to registers
//   board, commands, events, frame           the protocol: answers to commands, stored events, frames
//   lane, lane_parts, faults, settings       one lane: its state, the way of its parts, its faults, its settings
//   tracker, gate, eye                       the parts between the photo-eyes, the gate's servo, a debounced photo-eye
//   clock, place, text, crc16, config        time, positions on the belt, words in flash, checksum, pins and sizes
#include "board.h"
#include "hardware.h"

static castline::Board board;

void setup() { castline::hardware::begin(board); }

void loop() {
  castline::hardware::read(board);
  board.tick();
  castline::hardware::write(board);
}
