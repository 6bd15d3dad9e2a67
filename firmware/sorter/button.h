// A push-button. Only a short press counts, so a button that is stuck or held by a tool does nothing.
#pragma once
#include "config.h"
#include "contact.h"

namespace castline {

//   free --pressed for kMinPressMs--> pressed --released within kMaxPressMs--> free, and the press counts
//   pressed --kMaxPressMs over--> stuck --released--> free
class Button {
 public:
  Button() : was_free_(false), counts_(false) {}

  bool is_pressed() const { return contact_.is_on(); }

  // Handles the present level of the input. `passed_us` is the time since the last call. Returns true when a short press has ended.
  bool sample(bool pressed, uint16_t passed_us, uint32_t now_ms) {
    // A press that began before the reset does not count, because its beginning was not seen.
    if (!pressed && !contact_.is_on()) was_free_ = true;
    const bool has_changed = contact_.sample(pressed, passed_us, kMinPressMs * 1000U, kGateSampleUs);
    if (has_changed && contact_.is_on()) {
      counts_ = was_free_;
      since_ms_ = now_ms;
    }
    if (contact_.is_on() && now_ms - since_ms_ >= kMaxPressMs) counts_ = false;
    return has_changed && !contact_.is_on() && counts_;
  }

 private:
  Contact contact_;
  uint32_t since_ms_ = 0;
  bool was_free_ : 1, counts_ : 1;
};

}  // namespace castline
