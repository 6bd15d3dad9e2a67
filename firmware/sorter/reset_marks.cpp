#include "reset_marks.h"

#include <avr/io.h>
#include <avr/wdt.h>
#include <util/atomic.h>

namespace castline {
namespace reset_marks {

namespace {

// While the firmware runs, `check` has this value. After a power cut, the RAM has random values, so `check` has another value.
const uint32_t kCheck = 0xCA571113UL;
// The number of samples of the photo-eyes in 100 ms. A round of the main loop takes much less time. If the last round before a reset took
// 100 ms or longer, the main loop stood still, and the watchdog has reset the board.
const uint16_t kStillSamples = 100000UL / kEyeSampleUs;

// After a reset, the start-up code sets variables to zero. It skips the section .noinit, so the marks in this section stay unchanged.
struct Marks {
  uint32_t check;
  // The number of samples of the photo-eyes since the last round of the main loop. A large number shows that the main loop stands still.
  volatile uint16_t samples;
  bool is_host_talking;
};
Marks marks __attribute__((section(".noinit")));
// The content of the register MCUSR, which has a bit for each cause of the last reset.
uint8_t reset_flags __attribute__((section(".noinit")));

// Runs before the start-up code. Switches the watchdog off, because it would reset the board again within 16 ms.
void save_reset_flags() __attribute__((naked, used, section(".init3")));
void save_reset_flags() {
  reset_flags = MCUSR;
  MCUSR = 0;
  wdt_disable();
}

// The power-on flag is checked first, because the rising voltage at power-on sets the brown-out flag too.
Cause cause() {
  if (reset_flags & _BV(PORF)) return kPower;
  if (reset_flags & _BV(BORF)) return kBrownOut;
  if (reset_flags & _BV(WDRF)) return kWatchdog;
  if (reset_flags & _BV(EXTRF)) return kButton;
  if (marks.check != kCheck) return kPower;
  if (marks.samples >= kStillSamples) return kWatchdog;
  return marks.is_host_talking ? kUnknownCause : kButton;
}

}  // namespace

Cause begin() {
  const Cause found = cause();
  marks.samples = 0;
  marks.is_host_talking = false;
  marks.check = kCheck;
  return found;
}

void beat(bool is_host_talking) {
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { marks.samples = 0; }
  marks.is_host_talking = is_host_talking;
}

void count_sample() {
  if (marks.samples < kStillSamples) marks.samples = marks.samples + 1;
}

}  // namespace reset_marks
}  // namespace castline
