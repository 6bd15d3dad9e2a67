// Checks with the end switch whether a gate really moves. The switch is on while the gate stands at one of its two ends.
#pragma once
#include "clock.h"

namespace castline {

// What is wrong with a gate. The numbers are the details of fault 54.
enum GateTrouble : uint8_t { kNoTrouble, kNotLeft, kNotArrived };

//   at an end --gate told to move--> must leave --switch off--> between the ends --switch on--> at an end
//   must leave --limit over, or turned back too late--> kNotLeft        between the ends --limit over--> kNotArrived
class EndSwitch {
 public:
  EndSwitch() : was_out_(false), must_leave_(false) {}

  // Starts the check again. The gate may stand anywhere, and the time limit to reach an end begins now.
  void restart(bool is_out, uint32_t now_us) {
    was_out_ = is_out;
    must_leave_ = false;
    since_us_ = now_us;
  }

  // Must be called often. Returns each problem once. `is_out` is true if the servo was told to move the gate out. A gate that turns back
  // within `leave_ms` need not leave its end. PROTOCOL.md, "Confirmed moves", says when a stuck gate is not noticed.
  __attribute__((always_inline)) GateTrouble check(bool at_end, bool is_out, uint32_t now_us, uint32_t limit_us, uint16_t leave_ms) {
    if (is_out != was_out_) {
      const bool has_stayed = at_end && must_leave_ && reached(now_us, since_us_ + uint32_t{leave_ms} * 1000);
      if (has_stayed) {
        restart(is_out, now_us);
        return kNotLeft;
      }
      was_out_ = is_out;
      since_us_ = now_us;
      must_leave_ = at_end && !must_leave_;
    }
    if (!at_end) {
      must_leave_ = false;
    } else if (!must_leave_) {
      since_us_ = now_us;
    }
    if (!reached(now_us, since_us_ + limit_us)) return kNoTrouble;
    const GateTrouble trouble = must_leave_ ? kNotLeft : kNotArrived;
    restart(is_out, now_us);
    return trouble;
  }

 private:
  // The start of the time limit: the time of the last command to move, or the last time at which the gate was seen at its right end.
  uint32_t since_us_ = 0;
  bool was_out_ : 1, must_leave_ : 1;
};

}  // namespace castline
