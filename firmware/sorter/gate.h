// The state machine of a gate: the pulse that its servo gets, and how often the gate has left its rest position.
//
//   rest --moment of a diverted part--> going out --servo_ms--> out --dwell over--> returning --servo_ms--> rest
//   out, returning --next diverted part--> out again: no movement from `out`, and a turn from `returning`
//   any state --fault--> held as the setting `safe` says, until the lane releases the gate
#pragma once
#include "clock.h"
#include "settings.h"

namespace castline {

enum Position : uint8_t { kAtRest, kOut, kMoving };
extern const char kPositionWords[] PROGMEM;

class Gate {
 public:
  Gate() : is_out_(false), is_moving_(false), is_held_(false), is_dwelling_(false), is_testing_(false) {}
  void start(const Settings& settings, bool stored);

  // Pulse for the servo, 544..2400 us.
  uint16_t pulse_us() const { return pulse_us_; }
  // How often the gate has left its rest position since the reset.
  uint16_t moves() const { return moves_; }
  Position position() const { return is_moving_ ? kMoving : is_out_ ? kOut : kAtRest; }
  bool is_out() const { return is_out_; }
  // Whether tick() may have something to do.
  bool is_busy() const { return is_moving_ || (is_out_ && !is_held_); }

  // Takes new settings. The new pulse is sent at once, and the position (rest or out) stays.
  void configure(const Settings& settings) { send(settings); }

  // Moves the gate out for a part until the belt is at `until`. Returns true if the gate left its rest position for this part.
  bool divert(Place until, const Settings& settings, uint32_t now_us);

  // Holds the gate because of a fault: kDivert out, kPass at rest, kStop where the gate is. kNone releases the gate to rest.
  void hold(Action action, const Settings& settings, uint32_t now_us);

  // Swings the gate out until end_test().
  void test(const Settings& settings, uint32_t now_us);
  void end_test() { is_testing_ = false; }

  // Moves the gate back when the belt is far enough. `near` says that the next diverted part is so close that the gate would have to turn
  // at once. Then the gate stays out.
  void tick(Place place, const Settings& settings, uint32_t now_us, bool near);

 private:
  bool move(bool out, const Settings& settings, uint32_t now_us);
  void send(const Settings& settings) { pulse_us_ = settings[is_out_ ? kOutUs : kRestUs]; }

  uint16_t pulse_us_ = 0;
  uint16_t moves_ = 0;
  uint32_t arrives_us_ = 0;
  Place out_until_place_ = 0;
  bool is_out_ : 1, is_moving_ : 1, is_held_ : 1, is_dwelling_ : 1, is_testing_ : 1;
};

}  // namespace castline
