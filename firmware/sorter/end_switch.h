// Checks with the end switch whether a gate really moves. The switch is on while the gate stands at one of its two ends.
#pragma once
#include "clock.h"

namespace castline {

// The end switch can show two problems: the gate has not left its old end, or the gate has not arrived at its new end. The board reports
// both problems as fault 54. The detail of the fault is the value of `GateTrouble`.
enum GateTrouble : uint8_t { kNoTrouble, kNotLeft, kNotArrived };

// A gate has two ends: at rest and fully out. The end switch is on at each end.
//
//   at an end --order to move--> must leave the end --switch off--> between the ends --switch on--> at an end
//   must leave the end --time limit over--> kNotLeft
//   must leave the end --opposite order after leave_ms--> kNotLeft
//   between the ends --time limit over--> kNotArrived
class EndSwitch {
 public:
  EndSwitch() : was_out_(false), must_leave_(false) {}

  // Restarts the time limit within which the gate must reach an end. The check makes no assumption about where the gate is now.
  void restart(bool is_out, uint32_t now_us) {
    was_out_ = is_out;
    must_leave_ = false;
    since_us_ = now_us;
  }

  // Returns the problem if the gate has not moved in time, otherwise kNoTrouble. See PROTOCOL.md, "Confirmed moves". Must be called often.
  // - `is_out`: the last order. True means "move out", and false means "move back to rest".
  // - `limit_us`: the time in which the gate must reach its end. After a problem, this time begins again.
  // - `leave_ms`: if the opposite order comes within this time after an order, the gate need not leave its end.
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
  // The time limit is counted from this time. While the gate moves, this is the time of the last order to move. While the gate stands at
  // the end to which it was sent, check() always sets the present time, so that the limit is never exceeded.
  uint32_t since_us_ = 0;
  bool was_out_ : 1, must_leave_ : 1;
};

}  // namespace castline
