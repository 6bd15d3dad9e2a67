// The speed of a belt without an encoder. It is computed from the times at which the belt was switched on and off.
#pragma once
#include <stdint.h>

namespace castline {

// The states of a belt:
//
//   standing --switched on--> speeding up evenly --run_up_mm--> full speed --switched off--> slowing down evenly --run_down_mm--> standing
class Drive {
 public:
  bool is_standing() const { return speed_ == 0; }
  // True if the belt no longer changes its speed: it has full speed if `runs` is true, and otherwise stands still.
  bool is_steady(bool runs) const { return speed_ == (runs ? kFull : 0); }

  // Moves the time forward by `passed_us`. Returns how far the belt has moved, as microseconds of travel at full speed.
  // For example, the belt moves as far in 1000 us at half speed as in 500 us at full speed, so in both cases the result is 500.
  // `ramp_ms` is the time in which the belt speeds up to full speed, or slows down to a standstill.
  uint32_t advance(bool runs, uint32_t passed_us, uint32_t ramp_ms) {
    const uint32_t target = runs ? kFull : 0;
    if (speed_ == target || ramp_ms == 0) {
      speed_ = target;
      rest_us_ = 0;
      return runs ? passed_us : 0;
    }
    uint32_t travelled = 0;
    passed_us += rest_us_;
    const uint32_t change = ramp_ms > kFull ? 1 : kFull / ramp_ms;
    for (; passed_us >= 1000 && speed_ != target; passed_us -= 1000) {
      const uint32_t before = speed_;
      if (runs) {
        speed_ = kFull - speed_ > change ? speed_ + change : kFull;
      } else {
        speed_ = speed_ > change ? speed_ - change : 0;
      }
      travelled += (before + speed_) / 512 * 1000 >> 16;
    }
    if (speed_ == target) return travelled + advance(runs, passed_us, 0);
    rest_us_ = static_cast<uint16_t>(passed_us);
    return travelled;
  }

  // Returns how far the belt moves in `us` at its present speed, as microseconds of travel at full speed. For example, 1000 us at half
  // speed give 500.
  uint32_t travel(uint16_t us) const { return speed_ == kFull ? us : (speed_ >> 8) * us >> 16; }

 private:
  static const uint32_t kFull = 1UL << 24;
  // The present speed. kFull is the full speed.
  uint32_t speed_ = 0;
  // The time since the last change of the speed. While the belt starts or stops, its speed changes once in a millisecond.
  uint16_t rest_us_ = 0;
};

}  // namespace castline
