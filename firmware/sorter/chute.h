// Stores the diverted parts that are on their way from a gate to the eye in its reject chute.
#pragma once
#include "config.h"
#include "place.h"

namespace castline {

// The states of a diverted part:
//
//   diverted --eye blocked at most chute_window_mm from the expected position--> confirmed
//   diverted --belt more than chute_window_mm past the expected position--> overdue
class Chute {
 public:
  bool is_empty() const { return count_ == 0; }

  // Adds a diverted part. `event` is the number of its GATE event. The part must block the eye when the belt has the position `expected`.
  // Returns false if there is no room.
  bool add(uint16_t event, Place expected) {
    if (count_ == kChuteParts) return false;
    moves_[count_].event = event;
    moves_[count_++].expected = expected & kPlaceMask;
    return true;
  }

  // Removes the part whose expected position is nearest to `place`. The two positions must differ by at most `window`.
  // Returns false if no part is near enough.
  bool take_nearest(Place place, Place window, uint16_t& event) {
    int32_t least = static_cast<int32_t>(window);
    uint8_t nearest = count_;
    for (uint8_t index = 0; index < count_; ++index) {
      const int32_t late = past(place, moves_[index].expected), distance = late < 0 ? -late : late;
      if (distance > least || (distance == least && nearest < count_)) continue;
      least = distance;
      nearest = index;
    }
    return take(nearest, event);
  }

  // Removes an overdue part. A part is overdue if the belt has moved more than `window` past the part's expected position.
  // Returns false if no part is overdue.
  bool take_overdue(Place here, Place window, uint16_t& event) {
    uint8_t index = 0;
    while (index < count_ && past(here, moves_[index].expected) <= static_cast<int32_t>(window)) ++index;
    return take(index, event);
  }

  // Removes the oldest part. Returns false if no part is stored.
  bool take_oldest(uint16_t& event) { return take(0, event); }

 private:
  struct __attribute__((packed)) Move {
    uint16_t event;
    Place expected : 24;
  };

  bool take(uint8_t index, uint16_t& event) {
    if (index >= count_) return false;
    event = moves_[index].event;
    for (--count_; index < count_; ++index) moves_[index] = moves_[index + 1];
    return true;
  }

  Move moves_[kChuteParts] = {};
  uint8_t count_ = 0;
};

}  // namespace castline
