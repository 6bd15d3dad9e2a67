// An on-off input that ignores short pulses, such as the emergency stop or an end switch.
#pragma once
#include <stdint.h>

namespace castline {

// After a change of the level, the class adds up the time at the new level and subtracts the time at the old level. is_on() changes when
// the sum reaches `hold_us`. For example, with a `hold_us` of 10 ms, 14 ms at the new level and 4 ms at the old level are enough, because
// 14 - 4 is 10.
//
// The inputs of a gate are read only every few milliseconds. So for these inputs, the new level must last for `hold_us` without
// interruption. sample() uses this stricter rule if `most_us` is above 1 ms.
class Contact {
 public:
  Contact() : is_on_(false), was_on_(false) {}

  bool is_on() const { return is_on_; }
  // The level that the input had at the last call of sample().
  bool level() const { return was_on_; }

  // Inverts the stored level. Called when the setting `eye_light_on` has changed, because each level then has the opposite meaning.
  void invert(uint16_t hold_us) {
    is_on_ = !is_on_;
    was_on_ = !was_on_;
    sum_us_ = hold_us > sum_us_ ? static_cast<uint16_t>(hold_us - sum_us_) : 0;
  }

  // Treats the input as on until its level has been off for `hold_us`.
  // So if a button is already pressed when the board starts, this press does not count. A person must release the button first.
  void assume_on(uint16_t hold_us) {
    is_on_ = was_on_ = true;
    sum_us_ = hold_us;
  }

  // Handles the present level of the input. `passed_us` is the time since the last call. Returns true if is_on() has changed.
  // The compiler must inline this function, because each round of the main loop uses it twelve times. Without inlining, a round took 10 %
  // longer.
  __attribute__((always_inline)) bool sample(bool level, uint16_t passed_us, uint16_t hold_us, uint16_t most_us = kMostUs) {
    const bool has_lasted = level == was_on_;
    was_on_ = level;
    // At the inputs of a gate, a new level must last without interruption. If the old level comes back too early, the wait begins again.
    if (most_us > kMostUs && level == is_on_) sum_us_ = level ? hold_us : 0;
    // If the level has changed since the last call, the moment of the change is not known. The time since the last call is then not
    // counted, because a short pulse would seem longer than it was.
    if (!has_lasted || (level ? is_on_ && sum_us_ == hold_us : sum_us_ == 0)) return false;
    // One call changes sum_us_ by at most `most_us`. Without this limit, two short pulses, at the start and at the end of a round of 20 ms,
    // would count as one pulse of 20 ms.
    if (passed_us > most_us) passed_us = most_us;
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
  // Counts up to `hold_us` while the level is on, and down to 0 while the level is off. In microseconds.
  uint16_t sum_us_ = 0;
  bool is_on_ : 1, was_on_ : 1;
};

}  // namespace castline
