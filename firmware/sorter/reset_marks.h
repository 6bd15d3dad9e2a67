// The register MCUSR contains the cause of a reset. If the boot loader has cleared this register, the firmware finds the cause from these
// marks in RAM, which a reset leaves unchanged.
//
//   found in RAM                                    what caused the reset                           result
//   no marks                                        the RAM was without power                       kPower
//   marks, main loop stood still before the reset   the watchdog                                    kWatchdog
//   marks, a host was talking to the board          the button, low voltage, or a disturbance       kUnknownCause
//   marks, no host was talking                      the button, or a host that has opened the port  kButton
#pragma once
#include "board.h"

namespace castline {
namespace reset_marks {

// Returns the cause of the last reset. Must be called exactly once after each reset.
Cause begin();

// Must be called in every round of the main loop. Sets the count of count_sample() to 0, so that the count stays small while the main
// loop runs.
void beat(bool is_host_talking);

// Counts the samples of the photo-eyes since the last round of the main loop. Must be called by the interrupt that samples the photo-eyes.
void count_sample();

}  // namespace reset_marks
}  // namespace castline
