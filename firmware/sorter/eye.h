// A photo-eye, debounced: an edge counts when the level has held, with the place and time it had when it happened.
#pragma once
#include "clock.h"
#include "place.h"

namespace castline {

struct Edge {
  Place place;
  Stamp at;
};

//   level changes --held for debounce_us--> edge;  changes back before --> nothing happened
class Eye {
 public:
  Eye() : since_(0), blocked_(false), raw_(false), pending_(false), place_(0) {}

  bool is_blocked() const { return blocked_; }
  Place since() const { return since_; }  // leading edge of what blocks the eye now

  // The raw level is now `level`. To be called after settle() of the same moment.
  void change(bool level, Place place, uint32_t at_us) {
    if (level == raw_) return;
    raw_ = level;
    pending_ = level != blocked_;
    place_ = place & kPlaceMask;
    at_us_ = at_us;
  }

  // True when a change has held: blocked() is new, place() and at_us() are those of the change.
  bool settle(uint32_t now_us, uint16_t debounce_us) {
    if (!pending_ || !reached(now_us, at_us_ + debounce_us)) return false;
    pending_ = false;
    blocked_ = raw_;
    if (blocked_) since_ = place_;
    return true;
  }

  bool pending() const { return pending_; }  // a change has not yet held
  Place place() const { return place_; }
  uint32_t at_us() const { return at_us_; }

 private:
  // Packed: a board has eight of these.
  Place since_ : 24;
  bool blocked_ : 1, raw_ : 1, pending_ : 1;
  Place place_ : 24;
  uint32_t at_us_ = 0;
};

}  // namespace castline
