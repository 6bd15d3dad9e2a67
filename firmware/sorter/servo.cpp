#include "servo.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>

#include "config.h"

namespace castline {
namespace servo {

namespace {

// The timers count at 16 MHz / 8, which is two counts per microsecond.
const uint16_t kCountsPerUs = 2;
const uint16_t kTop = kServoFrameUs * kCountsPerUs - 1;
const uint16_t kQuiet = kServoQuietUs * kCountsPerUs;
// To delay the next pulse, time_pulse() sets the timer to an earlier count. The pulse then begins kHold counts (6.5 ms) from now.
const uint16_t kHold = kQuiet + 2000 * kCountsPerUs;
// If the next pulse begins within kGuard counts (20 us), the timer is not set, because the instructions that set it take too
// long.
const uint16_t kGuard = 40;

// The registers of a gate's servo output.
// Gates 1 and 4 share timer 4, so each of these two gates sometimes waits up to 2.4 ms until a pulse of the other gate has ended.
struct Channel {
  volatile uint16_t* count;
  volatile uint16_t* compare;
};

Channel channel(uint8_t index) {
  switch (index) {
    case 0: return {&TCNT4, &OCR4A};
    case 1: return {&TCNT1, &OCR1A};
    case 2: return {&TCNT3, &OCR3A};
    default: return {&TCNT4, &OCR4B};
  }
}

uint16_t width[kLanes];
// Width of each gate's pulse before the last change. A pulse of this width can still be in progress.
uint16_t width_before[kLanes];
// Bit mask of the gates with a new pulse width that was not sent yet.
uint8_t changed = 0;
// Bit mask of the gates whose next pulse was delayed. Each pulse is delayed only once, so that the servo is never without pulses for long.
uint8_t held_off = 0;

// Writes a 16-bit register of a timer as two bytes. Interrupts are off, because an interrupt between the two bytes could spoil the value.
void put(volatile uint16_t* to, uint16_t value) {
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { *to = value; }
}

// Starts a timer in the mode for servo pulses, unless this mode is already set. The Arduino core has started the timer in another mode, so
// the timer is stopped first.
void start_timer(volatile uint8_t* control_b, volatile uint8_t* control_a, volatile uint16_t* top, volatile uint16_t* count) {
  if (*control_b & _BV(WGM43)) return;
  *control_b = 0;
  *control_a = static_cast<uint8_t>((*control_a & ~_BV(WGM40)) | _BV(WGM41));
  put(top, kTop);
  *control_b = _BV(WGM43) | _BV(WGM42);
  put(count, kTop - 1);
  *control_b |= _BV(CS41);
}

// Bit mask of the gates whose pins carry no pulses. Such a pin stays high or low, for example for a solenoid valve.
uint8_t level_pins = 0;

// Connects a gate's pin with its timer, or disconnects it. A disconnected pin is low.
void connect(uint8_t index, bool to_timer) {
  const uint8_t gate = static_cast<uint8_t>(1 << index);
  volatile uint8_t* const control = index == 1 ? &TCCR1A : index == 2 ? &TCCR3A : &TCCR4A;
  const uint8_t bit = index == 3 ? _BV(COM4B1) : _BV(COM4A1);
  if (to_timer) {
    *control |= bit;
    level_pins &= static_cast<uint8_t>(~gate);
  } else {
    *control &= static_cast<uint8_t>(~bit);
    level_pins |= gate;
  }
}

// Returns whether a pulse of the gate can be in progress when the timer has the count `count`. The pulse has the new or the previous width.
bool pulse_may_be_high(uint8_t index, uint16_t count) {
  return count < width[index] * kCountsPerUs || count < width_before[index] * kCountsPerUs;
}

}  // namespace

void begin(uint8_t index, uint16_t pulse_us) {
  width[index] = width_before[index] = pulse_us;
  put(channel(index).compare, static_cast<uint16_t>(pulse_us * kCountsPerUs - 1));
  switch (index) {
    case 0: DDRH |= _BV(PH3); break;
    case 1: DDRB |= _BV(PB5); break;
    case 2: DDRE |= _BV(PE3); break;
    default: DDRH |= _BV(PH4);
  }
  connect(index, pulse_us > 0);
  // Gates 1 and 4 use timer 4, gate 2 uses timer 1, and gate 3 uses timer 3.
  if (index == 1) {
    start_timer(&TCCR1B, &TCCR1A, &ICR1, &TCNT1);
  } else if (index == 2) {
    start_timer(&TCCR3B, &TCCR3A, &ICR3, &TCNT3);
  } else {
    start_timer(&TCCR4B, &TCCR4A, &ICR4, &TCNT4);
  }
}

void set_pulse(uint8_t index, uint16_t pulse_us) {
  const uint8_t gate = static_cast<uint8_t>(1 << index);
  if (pulse_us != width[index]) {
    // width_before is the longest width that a pulse in progress can have. For example, if the width changes from 1000 us to 2000 us and
    // then to 1500 us, a pulse of 2000 us can still be in progress, so width_before is 2000 us.
    if (!(changed & gate) || width[index] > width_before[index]) width_before[index] = width[index];
    width[index] = pulse_us;
    // In fast PWM mode, a timer uses a new compare value (pulse width) only when its next period of 20 ms begins.
    put(channel(index).compare, static_cast<uint16_t>(pulse_us * kCountsPerUs - 1));
    changed |= gate;
  }
  // The pulse width is set before the pin is connected to the timer. Otherwise a pulse could begin in between and last 20 ms.
  if (level_pins & gate) {
    set_level(index, false);
    connect(index, true);
  }
}

void time_pulse(uint8_t index, bool quiet) {
  const uint8_t gate = static_cast<uint8_t>(1 << index);
  if (!quiet && !((changed | held_off) & gate)) return;
  volatile uint16_t* const to = channel(index).count;
  // Gates 2 and 3 have their own timers. Gates 1 and 4 share a timer, which is set only while no pulse of gate 1 or 4 is in progress.
  const uint8_t other = index == 0 ? 3 : index == 3 ? 0 : index;
  // Interrupts are off, so that no pulse can begin between reading and setting the timer. Otherwise, the timer could be set past the end of
  // this pulse, and the pulse would last until the period of the timer ends.
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
    const uint16_t count = *to;
    if (pulse_may_be_high(index, count) || pulse_may_be_high(other, count)) {
      held_off &= static_cast<uint8_t>(~gate);
    } else if (count < kTop - kGuard) {
      if (changed & gate) {
        // The timer's count is set to the end of the period, so that the next pulse begins at once. In the new period, all gates of this
        // timer get their new pulse widths.
        *to = kTop - 1;
        width_before[index] = width[index];
        width_before[other] = width[other];
        changed &= static_cast<uint8_t>(~(gate | 1 << other));
      } else if (quiet && !(held_off & gate) && count > kTop - kHold) {
        *to = kTop - kHold;
        held_off |= gate;
      }
    }
  }
}

bool is_pulse_waiting() { return changed != 0; }

void set_level(uint8_t index, bool is_high) {
  const uint8_t gate = static_cast<uint8_t>(1 << index);
  if (!(level_pins & gate)) {
    // A pulse in progress is finished first, because a shortened pulse would move the servo.
    volatile uint16_t* const from = channel(index).count;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
      const uint16_t count = *from;
      if (!pulse_may_be_high(index, count) && count < kTop - kGuard) connect(index, false);
    }
    if (!(level_pins & gate)) return;
    width[index] = width_before[index] = 0;
    changed &= static_cast<uint8_t>(~gate);
  }
  volatile uint8_t* const port = index == 1 ? &PORTB : index == 2 ? &PORTE : &PORTH;
  const uint8_t pin = static_cast<uint8_t>(index == 0 ? _BV(PH3) : index == 1 ? _BV(PB5) : index == 2 ? _BV(PE3) : _BV(PH4));
  *port = static_cast<uint8_t>(is_high ? *port | pin : *port & ~pin);
}

}  // namespace servo
}  // namespace castline
