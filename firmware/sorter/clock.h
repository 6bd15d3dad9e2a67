// Time on the board. Only differences below 35 minutes are formed from microseconds, so the 32-bit wrap (71.6 min) has no effect.
#pragma once
#include <stdint.h>

namespace castline {

// True when `now_us` is at or after `then_us`.
inline bool reached(uint32_t now_us, uint32_t then_us) { return static_cast<int32_t>(now_us - then_us) >= 0; }

// A moment as it is told: ms since the reset (wraps after 49.7 days) and the part below.
struct Stamp {
  uint32_t ms;
  uint16_t us;  // 0..999
};

// Milliseconds are carried forward from the microsecond counter at every tick, remainder kept.
class Clock {
 public:
  void start(uint32_t now_us) {
    us_ = now_us;
    stamp_ = {0, 0};
  }

  // To be called at least every 30 ms; never backwards.
  void advance(uint32_t now_us) {
    uint32_t passed = now_us - us_ + stamp_.us;
    us_ = now_us;
    for (; passed >= 1000; passed -= 1000) ++stamp_.ms;  // seldom more than once: cheaper than a division
    stamp_.us = static_cast<uint16_t>(passed);
  }

  uint32_t us() const { return us_; }
  const Stamp& now() const { return stamp_; }

  // The stamp of a moment that is at most 30 s ago.
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
