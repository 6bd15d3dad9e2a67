#include "hardware.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <avr/wdt.h>

#include "link.h"
#include "memory.h"
#include "sensors.h"
#include "servo.h"

namespace castline {
namespace hardware {

namespace {

// A gate's moment is near: frames are neither read nor written, which may take a millisecond. It lasts a few milliseconds at most.
bool quiet = false;

uint8_t lamps_set_at = 0;  // when the lamps were set, in 16 ms

// Kept out of the start-up's clearing: it is written before that.
uint8_t reset_flags __attribute__((section(".noinit")));

// The watchdog stays on after it has bitten; before anything else it must be stopped, or it bites again within 16 ms.
void save_reset_flags() __attribute__((naked, used, section(".init3")));
void save_reset_flags() {
  reset_flags = MCUSR;
  MCUSR = 0;
  wdt_disable();
}

// Power is looked at first: it comes with a brown-out flag as the voltage rises.
Cause cause() {
  if (reset_flags & _BV(PORF)) return kPower;
  if (reset_flags & _BV(BORF)) return kBrownOut;
  if (reset_flags & _BV(WDRF)) return kWatchdog;
  return reset_flags & _BV(EXTRF) ? kButton : kUnknownCause;
}

// Bit pattern of a lamp: 1 green, 2 yellow, 4 red.
uint8_t lamp_bits(Lamp lamp) { return lamp == kDark ? 0 : static_cast<uint8_t>(1 << lamp); }

// PL7 green, PL6 yellow, PL5 red; and the same from PL4 down.
uint8_t mirrored(uint8_t bits) { return static_cast<uint8_t>((bits & 1) << 2 | (bits & 2) | bits >> 2); }

// Lamps need no haste: 60 times a second.
void set_lamps(Board& board) {
  const uint8_t sixtieth = static_cast<uint8_t>(board.clock().now().ms >> 4);
  if (sixtieth == lamps_set_at) return;
  lamps_set_at = sixtieth;
  uint8_t lamps[kLanes];
  for (uint8_t index = 0; index < kLanes; ++index) lamps[index] = lamp_bits(board.lane(index).shown_lamp());
  PORTK = static_cast<uint8_t>(lamps[0] | lamps[1] << 4);
  PORTL = static_cast<uint8_t>((PORTL & 0x03) | mirrored(lamps[2]) << 5 | mirrored(lamps[3]) << 2);
  if (lamps_set_at & 32) {
    PORTB |= _BV(PB7);
  } else {
    PORTB &= static_cast<uint8_t>(~_BV(PB7));
  }
}

}  // namespace

void begin(Board& board) {
  cli();
  Settings settings[kLanes];
  Stored stored[kLanes];
  for (uint8_t lane = 0; lane < kLanes; ++lane) {
    stored[lane] = memory::read(lane, settings[lane]);
    servo::begin(lane, stored[lane] == kStored ? settings[lane][kRestUs] : kNeutralUs);
  }
  PORTF = 0;
  DDRF = 0xFF;
  DDRK = 0x77;
  DDRL = 0xFC;
  DDRB |= _BV(PB7);
  sensors::begin();
  link::begin();
  sei();
  const uint16_t run = memory::count_boot();
  board.start(sensors::now_us(), run, cause(), settings, stored);
  set_sleep_mode(SLEEP_MODE_IDLE);
  wdt_enable(WDTO_250MS);
}

void read(Board& board) {
  wdt_reset();
  board.advance(sensors::now_us());
  sensors::read(board);
  board.overrun(link::take_overrun());
  // As many bytes as a flood brings in one loop would starve the gates and the watchdog: at most one frame's worth.
  uint8_t byte;
  for (uint8_t count = 0; count < kMaxFrameBytes && !quiet && board.can_receive() && link::read(byte); ++count) board.receive(byte);
}

void write(Board& board) {
  uint8_t triggers = 0, relays = 0;
  quiet = false;
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& lane = board.lane(index);
    servo::send(index, lane.pulse_us(), lane.gate_moves_soon());
    quiet = quiet || lane.gate_moves_soon();
    if (lane.is_triggering()) triggers |= static_cast<uint8_t>(1 << index);
    if (lane.is_relay_closed()) relays |= static_cast<uint8_t>(0x10 << index);
  }
  PORTF = triggers | relays;
  set_lamps(board);
  if (!quiet && link::is_idle()) {
    const uint8_t length = board.next_frame(link::buffer());
    if (length > 0) link::send(length);
  }
  memory::tick(board);
  if (!sensors::take_sampled()) sleep_mode();  // until the next sample of the eyes, 200 us at most
}

}  // namespace hardware
}  // namespace castline
