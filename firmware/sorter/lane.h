// One lane: two photo-eyes, a tracker, a gate, and the faults that take the lane to its safe state.
//
//   waiting --COMMIT--> running --fault--> safe or stopped --HELLO or CLEAR, by fault--> running
//
// A lane committed with `lane_of` is no belt of its own but a further gate of another lane's belt: that one decides, and faults are its.
// lane.cpp has the lane's life, lane_parts.cpp the way of a part from eye to gate.
// Driven by advance(), steps(), eye(), look() and act(), which never block; what it has to say goes to the board's ring of events.
#pragma once
#include "config.h"
#include "events.h"
#include "eye.h"
#include "faults.h"
#include "gate.h"
#include "settings.h"
#include "tracker.h"

namespace castline {

enum State : uint8_t { kWaiting, kRunning, kSafeState, kStoppedState };
extern const char kStateWords[] PROGMEM;
enum Lamp : uint8_t { kGreen, kYellow, kRed, kDark };
extern const char kLampWords[] PROGMEM;
enum Test : uint8_t { kTestGate, kTestTrigger, kTestLamp, kTestRelay };
extern const char kTestWords[] PROGMEM;

// Since the reset, for STATUS.
struct LaneCounters {
  uint32_t diverted, passed, missing, unmatched, no_verdict;
};

class Lane;

// What the lanes of a board share.
struct BoardShared {
  Clock clock;
  Events events;
  Lane* lanes = nullptr;  // all of them
};

class Lane {
 public:
  Lane();

  // `stored`: the settings are those of the EEPROM; otherwise they are the defaults.
  void start(uint8_t number, const Settings& settings, bool stored, BoardShared& common);

  // ---- what the plant does
  void advance(uint32_t passed_us);  // time has passed
  void add_steps(int16_t count);  // encoder edges; backwards is negative
  void change_eye(uint8_t which, bool blocked, uint32_t at_us);  // the raw level of photo-eye 1 or 2
  void set_inputs(bool estop_open, bool servo_power);
  void update();  // at eyes, inputs and parts, at least every few milliseconds
  void move_gate();   // moves the gate when a part's moment has come: the more often, the more exactly

  // ---- what the host does
  void commit(const Settings& settings);
  void raise(Fault code, uint32_t detail);
  bool end_fault(Fault code);  // false when it was not in force
  bool has_fault_cause(Fault code) const;
  void test(Test what);

  // ---- what the board's outputs are to be
  uint16_t pulse_us() const { return gate_.pulse_us(); }
  bool is_triggering() const { return is_triggering_; }
  bool is_relay_closed() const { return is_relay_closed_; }
  Lamp shown_lamp() const;  // with the lamp test
  // A moment is so near that no servo pulse may be begun now.
  bool gate_moves_soon() const { return is_divert_near_ && !gate_.is_out(); }

  // ---- what others ask
  bool is_committed() const { return is_committed_; }
  State state() const;
  Lamp lamp() const;
  const Settings& settings() const { return settings_; }
  const LaneCounters& counters() const { return counters_; }
  const Gate& gate() const { return gate_; }
  const Faults& faults() const { return faults_; }
  uint8_t oldest_fault() const { return belt().faults_.oldest(); }
  bool is_gate_held() const { return belt().faults_.has(kHoldsGate); }
  Tracker& tracker() { return tracker_; }
  uint8_t tracked() const { return tracker_.size(); }
  bool is_further_gate() const { return is_further_gate_; }
  bool is_gate_of(uint8_t lane) const { return is_further_gate_ && is_committed_ && settings_[kLaneOf] == lane; }
  bool is_empty() const;  // no part between photo-eye 1 and the last gate of the belt
  bool is_testing() const { return test_ != kNoTest; }
  bool has_servo_power() const { return has_servo_power_; }
  bool is_estop_open() const { return is_estop_open_; }
  bool is_blocked(uint8_t which) const { return eyes_[which - 1].is_blocked(); }
  uint32_t position_steps() const { return settings_[kEncoder] ? travelled_ : travelled_ / 1000; }

 private:
  static const uint8_t kNoTest = 0xFF;
  static const uint8_t kSpeedSteps = 16;     // a belt's speed is taken over so many steps, ...
  static const uint16_t kSpeedUs = 30000;    // ... or over so long, where they are rarer
  static const uint8_t kTriggers = 3;     // waiting at a time
  static const uint8_t kTriggerLog2 = 6;  // they are kept in 64 us

  // A part past photo-eye 2, on its way to the gate's moment. It may lie in a tracker's memory: see armed().
  struct __attribute__((packed, may_alias)) Armed {
    uint32_t part : 27;
    uint8_t action : 2;
    uint8_t reason : 3;
    uint32_t moment : 24;
    uint32_t at_ms;
    uint16_t travel_ms;
  };

  static const uint8_t kFurtherGateArmed = sizeof(Part) * kParts / sizeof(Armed);

  // The lane whose belt this gate is at: itself, but for a further gate.
  const Lane& belt() const { return is_further_gate_ ? shared_->lanes[settings_[kLaneOf] - 1] : *this; }
  Lane& belt() { return is_further_gate_ ? shared_->lanes[settings_[kLaneOf] - 1] : *this; }
  // A further gate follows no parts of its own; those on their way to it take that room: it lies further behind, more are under way.
  Armed* armed() { return is_further_gate_ ? static_cast<Armed*>(tracker_.unused_memory()) : armed_; }
  const Armed& next_armed() const { return *const_cast<Lane*>(this)->armed(); }
  bool arm(const Armed& armed);  // false: no room
  void hold_gates(Action action);
  bool lacks_servo_power() const { return !has_servo_power_ && settings_[kUseServoPower]; }

  Place place() const;
  Place place_at(uint32_t at_us) const;
  void check_inputs(Place here);
  void settle_eye(uint8_t index, uint32_t now_us);
  void handle_edge1();
  void handle_edge2();
  void check_lengths(Place here);
  void count_part();
  void decide_part();
  void report_missing_front(const Stamp& at);
  void check_eyes();
  void act_on_moments(Place here);
  bool is_divert_near(Place here) const;
  void report(uint32_t number, Decision decision, bool moved, uint32_t at_ms, uint16_t travel_ms);
  void remove_parts();
  void remove_armed(Decision safe);
  void begin_counting();
  void switch_relay();
  void fire_triggers();

  // What every loop looks at comes first: the processor reaches the first 64 bytes of an object more quickly than the rest.
  bool has_stored_settings_ : 1, is_committed_ : 1;
  bool is_estop_open_ : 1, has_servo_power_ : 1;
  bool blocks_eye1_ : 1, is_counted1_ : 1;  // something stands before photo-eye 1; it has been counted
  bool blocks_eye2_ : 1;
  bool is_encoder_silent_ : 1;    // no encoder step for encoder_timeout_ms
  bool has_unstepped_edge_ : 1;  // suspect_us_ holds
  bool ignores_missing_ : 1;    // grace_until_ holds
  bool is_triggering_ : 1, is_relay_closed_ : 1;
  bool is_divert_near_ : 1;
  bool is_further_gate_ : 1;  // a further gate of another lane's belt
  uint8_t triggers_waiting_ = 0;
  uint8_t armed_count_ = 0;
  uint8_t test_ = kNoTest;
  BoardShared* shared_ = nullptr;
  uint32_t travelled_ = 0;    // encoder steps; without encoder microseconds with the relay closed
  Gate gate_;
  Eye eyes_[2];
  Armed armed_[kArmed];
  Place missing_after_ = 0;           // eye_gap_mm + window_mm
  Place ignore_missing_until_ = 0;
  uint32_t stepped_us_ = 0;   // when the last encoder step came
  uint32_t unstepped_edge_us_ = 0;   // an edge at an eye since which no step came
  uint32_t test_until_us_ = 0;
  uint16_t pulse_until_ = 0;  // in 64 us
  uint16_t measured_duration_us_ = 0;  // so long took ...
  uint8_t measured_steps_ = 0;      // ... so many encoder steps lately; 0: the belt's speed is not known
  uint8_t new_steps_ = 0;       // steps since measured_us_
  uint16_t measuring_since_us_ = 0;
  uint16_t triggers_[kTriggers];  // when the camera is to be fired, in 64 us
  uint8_t missing_in_a_row_ = 0, unmatched_in_a_row_ = 0;
  uint8_t number_ = 0;
  Faults faults_;
  Edge edge1_, edge2_;        // leading edges of what is before the eyes now
  LaneCounters counters_ = {0, 0, 0, 0, 0};
  Settings settings_;
  Tracker tracker_;
};

}  // namespace castline
