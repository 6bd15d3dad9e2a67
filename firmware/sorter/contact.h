// An on-off input that ignores short pulses: the emergency stop, the servo's supply, the signal "belt stands".
#pragma once
#include <stdint.h>

namespace castline {

//   off --on for `hold_us` longer than off--> on --off for `hold_us` longer than on--> off
class Contact {
 public:
  Contact() : is_on_(false), was_on_(false) {}

  bool is_on() const { return is_on_; }

  // Takes the present level of the input. `passed_us` is the time since the last call. Returns true if is_on() has changed.
  bool sample(bool level, uint16_t passed_us, uint16_t hold_us) {
    const bool has_lasted = level == was_on_;
    was_on_ = level;
    // A time during which the level has changed counts for neither level, so a pulse never counts for more than its length.
    if (!has_lasted || (level ? is_on_ && sum_us_ == hold_us : sum_us_ == 0)) return false;
    // One call counts for at most kMostUs, so a late round of the main loop cannot turn two pulses into a long one.
    if (passed_us > kMostUs) passed_us = kMostUs;
    if (level) {
      sum_us_ = hold_us - sum_us_ > passed_us && hold_us > sum_us_ ? static_cast<uint16_t>(sum_us_ + passed_us) : hold_us;
    } else {
      sum_us_ = sum_us_ > passed_us ? static_cast<uint16_t>(sum_us_ - passed_us) : 0;
    }
    const bool changes = is_on_ ? sum_us_ == 0 : sum_us_ == hold_us;
    if (changes) is_on_ = !is_on_;
    return changes;
  }

 private:
  static const uint16_t kMostUs = 1000;
  // How long the input was on, minus how long it was off, between 0 and the last `hold_us`.
  uint16_t sum_us_ = 0;
  bool is_on_ : 1, was_on_ : 1;
};

}  // namespace castline
