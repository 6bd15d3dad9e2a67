// A debounced photo-eye. A change counts as an edge when the new level has lasted for debounce_us.
#pragma once
#include "clock.h"
#include "place.h"

namespace castline {

struct Edge {
  Place place;
  Stamp at;
};

// Counts the leading edges at a photo-eye since the reset, for the pages `edge1` and `edge2` of STATUS. Edges are counted in every state of
// the lane, even before COMMIT and during faults.
struct EdgeLog {
  uint16_t count = 0;
  // `ms` and `steps` are the time and the encoder edges at the last leading edge of an object.
  // `length_ms` and `length_steps` count from the leading edge to the trailing edge. They are 0 while the object blocks the eye.
  uint32_t ms = 0, steps = 0, length_ms = 0, length_steps = 0;

  void add(bool blocked, uint32_t at_ms, uint32_t at_steps) {
    if (blocked) {
      ++count;
      ms = at_ms;
      steps = at_steps;
      length_ms = length_steps = 0;
    } else {
      length_ms = at_ms - ms;
      length_steps = at_steps - steps;
    }
  }
};

// A change of the level at the input is an edge or is ignored:
//
//   level changes --lasts for debounce_us--> edge
//   level changes --changes back within debounce_us--> ignored
class Eye {
 public:
  Eye() : since_(0), blocked_(false), raw_(false), pending_(false), place_(0) {}

  bool is_blocked() const { return blocked_; }
  // The belt position at which the eye became blocked. Valid while the eye is blocked.
  Place since() const { return since_; }

  // Stores `place` as the leading edge of the object that blocks the eye now.
  void restart(Place place) { since_ = place & kPlaceMask; }

  // Stores a new level of the input (true means blocked). `steps` is the number of encoder edges so far.
  // The caller must call settle() first. Otherwise, an earlier change that has lasted long enough could be lost.
  void change(bool level, Place place, uint32_t at_us, uint32_t steps) {
    if (level == raw_) return;
    raw_ = level;
    pending_ = level != blocked_;
    place_ = place & kPlaceMask;
    at_us_ = at_us;
    steps_ = steps;
  }

  // Inverts the stored level of the input, because the setting `eye_light_on` has changed.
  void invert(Place place, uint32_t at_us, uint32_t steps) { change(!raw_, place, at_us, steps); }

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
  uint32_t steps() const { return steps_; }

 private:
  // Bit fields save RAM, because a board has eight photo-eyes.
  Place since_ : 24;
  bool blocked_ : 1, raw_ : 1, pending_ : 1;
  Place place_ : 24;
  uint32_t at_us_ = 0, steps_ = 0;
};

}  // namespace castline
