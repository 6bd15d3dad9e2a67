// The serial line: UART 0 with interrupts, a ring buffer for received bytes, and a buffer for one frame to send.
#pragma once
#include <stdint.h>

namespace castline {
namespace link {

void begin();
// Reads the next byte. Returns false if there is none.
bool read(uint8_t& byte);
// Returns how many bytes were lost since the last call, because the ring buffer was full or the UART was read too late.
uint32_t take_overrun();
// Returns whether the last frame has been sent. Until then, the caller must not write to the buffer.
bool is_idle();
// Returns the buffer for the next frame, which has kMaxFrameBytes bytes.
char* buffer();
// Sends the first `length` bytes of the buffer.
void send(uint8_t length);

}  // namespace link
}  // namespace castline
