// The firmware of Castline's board, for the Arduino Mega 2560: read, tick, write. firmware/PROTOCOL.md says what it does,
// docs/wiring.md what is connected where, config.h the same for this program.
#include "board.h"
#include "hardware.h"

static castline::Board board;

void setup() { castline::hardware::begin(board); }

void loop() {
  castline::hardware::read(board);
  board.tick();
  castline::hardware::write(board);
}
