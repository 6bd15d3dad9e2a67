// A push-button. Only a short press counts, so a button that is stuck or held by a tool does nothing.
#pragma once
#include "config.h"
#include "contact.h"

namespace castline {

// The states of a push-button:
//
//   free --pressed for kMinPressMs--> pressed --released within kMaxPressMs--> free, and the press counts
//   pressed --kMaxPressMs over--> stuck --released--> free
class Button {
 public:
  // If the button is already pressed when the board starts, this press does not count, because nobody knows when it began.
  Button() : counts_(false) { contact_.assume_on(kMinPressMs * 1000U); }

  bool is_pressed() const { return contact_.is_on(); }

  // Handles the present level of the input. `passed_us` is the time since the last call. Returns true when a short press has ended.
  bool sample(bool pressed, uint16_t passed_us, uint32_t now_ms) {
    const bool has_changed = contact_.sample(pressed, passed_us, kMinPressMs * 1000U, kGateSampleUs);
    if (has_changed && contact_.is_on()) {
      counts_ = true;
      since_ms_ = now_ms;
    }
    if (contact_.is_on() && now_ms - since_ms_ >= kMaxPressMs) counts_ = false;
    return has_changed && !contact_.is_on() && counts_;
  }

 private:
  Contact contact_;
  uint32_t since_ms_ = 0;
  bool counts_;
};

}  // namespace castline
