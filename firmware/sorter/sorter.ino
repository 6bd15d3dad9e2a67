// The firmware of Castline's board for the Arduino Mega 2560. Each round of the main loop reads the inputs (hardware.cpp), decides what to
// do (board.cpp), and writes the outputs (hardware.cpp).
//
// firmware/PROTOCOL.md describes what the firmware does. docs/wiring.md and config.h list what is connected to which pin.
// These are the files, from those that access the hardware to the basic ones:
//   hardware, link, sensors, servo, memory   pins, serial line, photo-eyes and encoders, servo pulses, EEPROM: all access to registers
//   board, commands, events, frame           the protocol: answers to commands, stored events, frames
//   lane, lane_parts, faults, settings       one lane: its state, its parts from photo-eye 1 to the gate, its faults, its settings
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
