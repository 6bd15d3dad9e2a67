// A debounced photo-eye. A change counts as an edge when the new level has lasted for debounce_us.
#pragma once
#include "clock.h"
#include "place.h"

namespace castline {

struct Edge {
  Place place;
  Stamp at;
};

//   level changes --lasts for debounce_us--> edge
//   level changes --changes back before--> ignored
class Eye {
 public:
  Eye() : since_(0), blocked_(false), raw_(false), pending_(false), place_(0) {}

  bool is_blocked() const { return blocked_; }
  // Place of the leading edge of the part that blocks the eye now.
  Place since() const { return since_; }

  // From now on, the length of the object at the eye is measured from `place`.
  void restart(Place place) { since_ = place & kPlaceMask; }

  // Stores a new level of the input (true means blocked). Call settle() first, or an earlier change could be lost.
  void change(bool level, Place place, uint32_t at_us) {
    if (level == raw_) return;
    raw_ = level;
    pending_ = level != blocked_;
    place_ = place & kPlaceMask;
    at_us_ = at_us;
  }

  // Returns true if a change has lasted for `debounce_us`. Then place() and at_us() return where and when it began.
  bool settle(uint32_t now_us, uint16_t debounce_us) {
    if (!pending_ || !reached(now_us, at_us_ + debounce_us)) return false;
    pending_ = false;
    blocked_ = raw_;
    if (blocked_) since_ = place_;
    return true;
  }

  // True while a change has not lasted for the debounce time yet.
  bool pending() const { return pending_; }
  Place place() const { return place_; }
  uint32_t at_us() const { return at_us_; }

 private:
  // Bit fields save RAM, because a board has eight photo-eyes.
  Place since_ : 24;
  bool blocked_ : 1, raw_ : 1, pending_ : 1;
  Place place_ : 24;
  uint32_t at_us_ = 0;
};

}  // namespace castline
