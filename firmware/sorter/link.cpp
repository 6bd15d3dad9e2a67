#include "link.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>

#include "config.h"
#include "frame.h"

namespace castline {
namespace link {

namespace {
// The ring buffer has 256 bytes, so an index of one byte wraps at its end without a check.
uint8_t ring[kReceiveRing];
volatile uint8_t written = 0, taken = 0;
volatile uint16_t waiting = 0;
volatile uint8_t lost = 0;

char frame[kMaxFrameBytes];
volatile uint8_t length = 0, sent = 0;
}  // namespace

static_assert(kReceiveRing == 256, "the ring's indices are single bytes");

void begin() {
  // With the double-speed bit, the baud rate differs from 115200 by 2.1 %. Without this bit, it would differ by 3.5 %.
  UCSR0A = _BV(U2X0);
  UBRR0 = F_CPU / 8 / kBaud - (F_CPU / 8 % kBaud * 2 < kBaud ? 1 : 0);
  // 8 data bits, no parity, 1 stop bit.
  UCSR0C = _BV(UCSZ01) | _BV(UCSZ00);
  UCSR0B = _BV(RXEN0) | _BV(TXEN0) | _BV(RXCIE0);
}

bool read(uint8_t& byte) {
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
    if (waiting == 0) return false;
    byte = ring[taken++];
    --waiting;
  }
  return true;
}

uint32_t take_overrun() {
  uint8_t count;
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
    count = lost;
    lost = 0;
  }
  return count;
}

bool is_idle() { return sent == length; }

char* buffer() { return frame; }

void send(uint8_t bytes) {
  sent = 0;
  length = bytes;
  UCSR0B |= _BV(UDRIE0);
}

ISR(USART0_RX_vect) {
  const uint8_t state = UCSR0A;
  const uint8_t byte = UDR0;
  if ((state & _BV(DOR0)) && lost < 255) ++lost;
  if (waiting == kReceiveRing) {
    if (lost < 255) ++lost;
    return;
  }
  // A byte with a framing error is stored too, because the checksum detects it.
  ring[written++] = byte;
  ++waiting;
}

ISR(USART0_UDRE_vect) {
  if (sent == length) {
    UCSR0B &= static_cast<uint8_t>(~_BV(UDRIE0));
  } else {
    UDR0 = static_cast<uint8_t>(frame[sent++]);
  }
}

}  // namespace link
}  // namespace castline
