// The state machine of a gate. It decides which pulse the gate's servo gets.
//
//   rest --diverted part at the gate--> going out --servo_ms--> out --dwell over--> returning --servo_ms--> rest
//   out --next diverted part--> out, without a movement
//   returning --next diverted part--> going out again
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

  // Width of the servo pulse, 544..2400 us.
  uint16_t pulse_us() const { return held_us_ ? held_us_ : pulse_us_; }
  // The number of times that the gate has left its rest position since the reset.
  uint16_t moves() const { return moves_; }
  Position position() const { return is_moving_ ? kMoving : is_out_ ? kOut : kAtRest; }
  bool is_out() const { return is_out_; }
  // False if tick() has nothing to do, because the gate stands at rest or is held out.
  bool is_busy() const { return is_moving_ || (is_out_ && !is_held_); }

  // Uses new settings: a gate at rest gets the new rest_us at once, and a gate that is out gets the new out_us.
  void configure(const Settings& settings) { send(settings); }

  // Moves the gate out for a part. The gate returns when the belt has the position `until`. Returns false if the gate was out already.
  bool divert(Place until, const Settings& settings, uint32_t now_us);

  // Holds the gate in one position during a fault. The action kDivert holds the gate out, kPass holds it at rest, and kStop leaves it where
  // it is. The action kNone releases the gate.
  void hold(Action action, const Settings& settings, uint32_t now_us);

  // Moves the gate out for the command TEST. The gate stays out until end_test() is called.
  void test(const Settings& settings, uint32_t now_us);
  void end_test() { is_testing_ = false; }

  // Changes the pulse width of the servo to `pulse_us` for kServoHoldMs. The command SERVO uses this method.
  // If `pulse_us` is 0, the servo gets its former pulse width again.
  void hold_pulse(uint16_t pulse_us, uint32_t now_us) {
    held_us_ = pulse_us;
    held_since_us_ = now_us;
  }
  void tick_held_pulse(uint32_t now_us);
  bool is_pulse_held() const { return held_us_ != 0; }

  // Moves the gate back to rest after a diverted part. If `near` is true, the next part to divert is close, so the gate stays out.
  void tick(Place place, const Settings& settings, uint32_t now_us, bool near);

 private:
  bool move(bool out, const Settings& settings, uint32_t now_us);
  void send(const Settings& settings) { pulse_us_ = settings[is_out_ ? kOutUs : kRestUs]; }

  uint16_t pulse_us_ = 0;
  uint16_t moves_ = 0;
  // The pulse width that the command SERVO has set, or 0 if the command does not hold the gate.
  uint16_t held_us_ = 0;
  uint32_t held_since_us_ = 0;
  uint32_t arrives_us_ = 0;
  Place out_until_place_ = 0;
  bool is_out_ : 1, is_moving_ : 1, is_held_ : 1, is_dwelling_ : 1, is_testing_ : 1;
};

}  // namespace castline
