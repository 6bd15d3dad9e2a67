// Time on the board. Microseconds wrap after 71.6 minutes, so only times less than 35 minutes apart are compared.
#pragma once
#include <stdint.h>

namespace castline {

// Returns whether `now_us` is at or after `then_us`.
inline bool reached(uint32_t now_us, uint32_t then_us) { return static_cast<int32_t>(now_us - then_us) >= 0; }

// A time as the protocol sends it: `ms` milliseconds and `us` microseconds (0..999) since the reset. `ms` wraps after 49.7 days.
struct Stamp {
  uint32_t ms;
  uint16_t us;
};

// Counts the milliseconds since the reset, and the microseconds (0..999) since the last full millisecond.
class Clock {
 public:
  void start(uint32_t now_us) {
    us_ = now_us;
    stamp_ = {0, 0};
  }

  // Sets the present time. Must be called at least every 30 ms. `now_us` must not be before the time of the last call.
  void advance(uint32_t now_us) {
    uint32_t passed = now_us - us_ + stamp_.us;
    us_ = now_us;
    // Usually, less than 2 ms have passed since the last call. So a loop that adds one millisecond at a time is faster than a division.
    for (; passed >= 1000; passed -= 1000) ++stamp_.ms;
    stamp_.us = static_cast<uint16_t>(passed);
  }

  uint32_t us() const { return us_; }
  const Stamp& now() const { return stamp_; }

  // Returns `then_us`, a value of the microsecond counter, as a Stamp. The value must be at most 30 s old.
  Stamp at(uint32_t then_us) const {
    const uint32_t ago = us_ - then_us;
    if (ago >= 0x80000000UL) return stamp_;
    if (ago <= stamp_.us) return {stamp_.ms, static_cast<uint16_t>(stamp_.us - ago)};
    const uint32_t beyond = ago - stamp_.us;
    const uint32_t whole = (beyond + 999) / 1000;
    return {stamp_.ms - whole, static_cast<uint16_t>(whole * 1000 - beyond)};
  }

 private:
  uint32_t us_ = 0;
  Stamp stamp_ = {0, 0};
};

}  // namespace castline
