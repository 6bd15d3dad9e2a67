// The serial line: UART 0 by interrupts. A ring for what comes, one frame for what goes.
#pragma once
#include <stdint.h>

namespace castline {
namespace link {

void begin();
bool read(uint8_t& byte);      // false when nothing has come
uint32_t take_overrun();       // bytes lost since the last call: ring full, or the UART was not read in time
bool is_idle();                   // the last frame has left: the buffer may be filled again
char* buffer();                // of kLongestFrame bytes
void send(uint8_t length);     // what stands in the buffer

}  // namespace link
}  // namespace castline
