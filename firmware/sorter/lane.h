// One lane: two photo-eyes, a tracker of the parts between them, a gate, and the faults.
//
//   waiting --COMMIT--> running --fault--> safe or stopped --HELLO or CLEAR, depending on the fault--> running
//
// With the setting `lane_of`, the gate stands at the belt of another lane (an additional gate).
#pragma once
#include "button.h"
#include "camera.h"
#include "chute.h"
#include "config.h"
#include "contact.h"
#include "drive.h"
#include "end_switch.h"
#include "events.h"
#include "eye.h"
#include "faults.h"
#include "gate.h"
#include "plant_interface.h"
#include "settings.h"
#include "tracker.h"

namespace castline {

enum State : uint8_t { kWaiting, kRunning, kSafeState, kStoppedState };
extern const char kStateWords[] PROGMEM;
enum Lamp : uint8_t { kGreen, kYellow, kRed, kDark };
extern const char kLampWords[] PROGMEM;
enum Test : uint8_t { kTestGate, kTestTrigger, kTestLamp, kTestRelay };
extern const char kTestWords[] PROGMEM;

// The numbers of parts that the lane has diverted, passed and so on since the reset. STATUS returns them on its page `count`.
struct LaneCounters {
  uint32_t diverted, passed, missing, unmatched, no_verdict;
};

// The numbers of castings at the eye in the reject chute since the reset. STATUS returns these numbers on its page `chute`.
//
//   seen          castings that the eye has seen
//   unexpected    castings that the eye has seen although no gate had diverted them
//   unconfirmed   diverted parts that the eye did not see
struct ChuteCounters {
  uint32_t seen, unexpected, unconfirmed;
};

// The present levels of the inputs of a gate, its chute and its push-button. The levels are not debounced.
struct GateInputs {
  // True if the end switch says that the gate stands at one of its two ends.
  bool at_end;
  // True if the input of the chute's eye is low. The setting `eye_light_on` of the belt says which level means "blocked".
  bool is_chute_low;
  bool chute_full, button_pressed;
};

// Who has ended a fault: the host, or a person with a button. The FAULT event that reports the end contains this value as its detail.
enum EndedBy : uint8_t { kEndedByHost, kEndedByButton };

class Lane;

// Says whether the EEPROM contains settings of a lane, and whether they are valid.
enum Stored : uint8_t { kNothingStored, kDamaged, kStored };

// The data of one lane in the EEPROM. If the stored settings are absent or damaged, `settings` has the defaults.
struct StoredLane {
  Settings settings;
  Stored state;
  // The stored faults. A reset does not end these faults, because a person must end them.
  FaultSet faults;
};

struct BoardShared {
  Clock clock;
  Events events;
  Lane* lanes = nullptr;
};

class Lane {
 public:
  Lane();

  // Must be called once after a reset. `number` is 1..4.
  void start(uint8_t number, const StoredLane& stored, BoardShared& common);

  // ---- methods for inputs and time
  // Moves the lane's time forward. Without an encoder, the lane also computes from the time how far the belt has moved.
  void advance(uint32_t passed_us);
  // Adds encoder edges to the belt's position. A negative count means that the belt ran backwards.
  void add_steps(int16_t count);
  // Handles a change at the input of photo-eye 1 or 2. The change is not debounced yet. The setting `eye_light_on` says which level means
  // "blocked".
  void change_eye(uint8_t which, bool is_low, uint32_t at_us);
  // Stores the levels of emergency stop, servo supply and belt signal. Must be called in every round of the main loop, after advance().
  void set_inputs(bool estop_open, bool servo_power, bool belt_runs);
  // Stores the present levels of the gate's inputs. Must be called every few milliseconds.
  void set_gate_inputs(const GateInputs& inputs);
  // Stores the present levels of the plant interface's inputs. Must be called in every round of the main loop, after advance() and before
  // set_inputs().
  void set_plant_inputs(bool reset_pressed, bool bypass_on);
  // Checks the inputs and the photo-eyes, counts parts, and decides what to do with them. Must be called at least every few milliseconds.
  void update();
  // Moves the gate if a part has reached it. Must be called often, so that the gate moves at the right time.
  void move_gate();

  // ---- methods for commands of the host, and for faults
  void commit(const Settings& settings);
  void raise(Fault code, uint32_t detail);
  // Ends a fault and reports its end. Returns false if there was no such fault.
  bool end_fault(Fault code, EndedBy by = kEndedByHost);
  bool has_fault_cause(Fault code) const;
  void test(Test what);
  // Changes the pulse width of the servo to `pulse_us` for kServoHoldMs. The command SERVO uses this method.
  // The servo gets its former pulse width again if `pulse_us` is 0, or if a part arrives at a photo-eye of the belt.
  void hold_servo(uint16_t pulse_us) { gate_.hold_pulse(pulse_us, shared_->clock.us()); }

  // ---- outputs
  uint16_t pulse_us() const { return gate_.pulse_us(); }
  bool is_triggering() const { return camera_.is_triggering(); }
  bool is_relay_closed() const { return is_relay_closed_; }
  // The colour that the lamp shows at this moment, even during a lamp test. The colour is kDark if the lane has no belt of its own, because
  // such a lane has no lamp. During the bypass, the lamp blinks: it is kDark half of the time.
  Lamp shown_lamp() const;
  // True if the gate must move out within kServoQuietUs. During this time, no servo pulse is allowed to begin, because it would delay the
  // movement.
  bool gate_moves_soon() const { return is_divert_near_ && !gate_.is_out(); }

  // The signals of the plant interface, as bits of PlantSignal.
  uint8_t plant_signals() const { return plant_signals_; }
  // The level at the servo's pin if a solenoid valve moves the gate: high while the gate is out.
  bool is_solenoid_on() const { return gate_.pulse_us() == settings_[kOutUs]; }

  // ---- state
  bool is_committed() const { return is_committed_; }
  State state() const;
  Lamp lamp() const;
  const Settings& settings() const { return settings_; }
  const LaneCounters& counters() const { return counters_; }
  const ChuteCounters& chute_counters() const { return chute_counters_; }
  const Gate& gate() const { return gate_; }
  const Faults& faults() const { return faults_; }
  uint8_t oldest_fault() const { return belt().faults_.oldest(); }
  bool is_gate_held() const { return belt().faults_.has(kHoldsGate) || belt().is_bypassed(); }
  // True if parts pass without Castline, because a person has turned the bypass key.
  bool is_bypassed() const { return faults_.has(kBypassed); }
  uint8_t rejects_in_a_row() const { return rejects_in_a_row_; }
  bool is_reset_pressed() const { return uses_plant() && reset_pressed_.is_on(); }
  // True if the lane's plant interface uses the pins of another lane.
  bool uses_plant() const { return settings_[kUsePlant]; }
  Tracker& tracker() { return tracker_; }
  uint8_t tracked() const { return tracker_.size(); }
  bool is_further_gate() const { return is_further_gate_; }
  bool is_gate_of(uint8_t lane) const { return is_further_gate_ && is_committed_ && settings_[kLaneOf] == lane; }
  // True if the belt is empty: no known part is on its way to a gate, and no diverted part is on its way to the eye in a chute.
  bool is_empty() const;
  bool is_testing() const { return test_ != kNoTest; }
  bool is_servo_held() const { return gate_.is_pulse_held(); }
  bool has_servo_power() const { return !servo_power_missing_.is_on(); }
  bool is_estop_open() const { return estop_open_.is_on(); }
  // Returns whether the input "belt runs" says that the belt runs, even if the setting `use_belt` is 0.
  bool is_belt_on() const { return !belt_off_.is_on(); }
  bool is_blocked(uint8_t which) const { return eyes_[which - 1].is_blocked(); }
  // True if an object blocks a photo-eye of the belt at which this lane's gate stands.
  bool is_belt_blocked() const { return belt().is_blocked(1) || belt().is_blocked(2); }
  const EdgeLog& edges(uint8_t which) const { return edge_logs_[which - 1]; }
  bool is_gate_at_end() const { return gate_at_end_.is_on(); }
  bool is_chute_blocked() const { return chute_eye_.is_on(); }
  bool is_chute_full() const { return chute_full_.is_on(); }
  bool is_button_pressed() const { return button_.is_pressed(); }
  // Returns the belt's position in steps. A step is an encoder edge or, on a belt without an encoder, a millisecond of travel at full
  // speed.
  // Before the first COMMIT, the position is the number of encoder edges, even if the belt has no encoder.
  uint32_t position_steps() const { return settings_[kEncoder] || !is_committed_ ? steps_ : travelled_us_ / 1000; }

 private:
  static const uint8_t kNoTest = 0xFF;
  // A measurement of the belt's speed ends after 16 encoder steps, or after 30 ms if fewer steps have come by then.
  static const uint8_t kSpeedSteps = 16;
  static const uint16_t kSpeedUs = 30000;
  // While the belt moves, an encoder with a broken wire gives one step forwards and one step backwards in turn. So the belt counts as moved
  // only after at least this many steps in one direction.
  static const uint8_t kLeastSteps = 2;

  // A decided part between photo-eye 2 and its gate. `moment` is the position of the belt at which the gate must move.
  struct __attribute__((packed, may_alias)) Armed {
    uint32_t part : 27;
    uint8_t action : 2;
    uint8_t reason : 3;
    uint32_t moment : 24;
    uint32_t at_ms;
    uint16_t travel_ms;
  };

  static const uint8_t kFurtherGateArmed = sizeof(Part) * kParts / sizeof(Armed);

  // A new level at an input of the plant interface counts after it has lasted for kKeyMs. The contacts of a key switch bounce for less
  // time.
  static const uint16_t kKeyMs = 30;

  // Returns the lane of the belt at which this gate stands.
  // With the setting lane_of, the gate stands at the belt of another lane. Otherwise, the gate stands at the belt of its own lane.
  const Lane& belt() const { return is_further_gate_ ? shared_->lanes[settings_[kLaneOf] - 1] : *this; }
  Lane& belt() { return is_further_gate_ ? shared_->lanes[settings_[kLaneOf] - 1] : *this; }
  // Returns the decided parts that are on their way to this gate.
  // The lane of an additional gate tracks no parts. So the parts on their way to an additional gate are stored in the unused memory of the
  // lane's tracker.
  Armed* armed() { return is_further_gate_ ? static_cast<Armed*>(tracker_.unused_memory()) : armed_; }
  const Armed& next_armed() const { return *const_cast<Lane*>(this)->armed(); }
  // Adds a part to the parts that wait for this gate. Returns false if there is no room.
  bool arm(const Armed& armed);
  // Returns the action that this lane's gate must keep now: kPass while the belt is bypassed, the setting `safe` while a fault holds the
  // gate, and kNone in normal operation.
  Action held_action() const;
  void hold_gates();
  void switch_bypass();
  void update_plant();
  void restart_plant_inputs();
  bool lacks_servo_power() const { return servo_power_missing_.is_on() && settings_[kUseServoPower]; }
  bool has_chute_eye() const { return settings_[kChuteMm] > 0; }
  bool has_gate_fault_cause(Fault code) const;
  void watch_chute(bool is_low, uint16_t passed_us, uint16_t hold_us);
  void see_in_chute(Place place);
  void follow_into_chute(uint16_t event, Place moment);
  void give_up_chute();
  void forget_chute_ends();
  void check_gate(Place here);
  void acknowledge();

  Place place() const;
  Place place_at(uint32_t at_us) const;
  // Returns whether a belt without an encoder stands still. The lane computes this from the state of the belt's relay. If `use_belt` is 1,
  // it also uses the input "belt runs".
  bool stands() const { return !settings_[kEncoder] && drive_.is_standing(); }
  bool runs() const { return is_relay_closed_ && !(settings_[kUseBelt] && belt_off_.is_on()); }
  void drive_belt(uint32_t passed_us);
  void check_inputs(Place here);
  void settle_eye(uint8_t index, uint32_t now_us);
  bool take_edge(uint8_t index, uint32_t now_us, uint16_t debounce_us);
  void handle_edge1();
  void handle_edge2();
  void check_lengths(Place here);
  // Returns whether `length` is less than part_min_mm. If an object is that short, it is not a part. If a gap is that short, the part
  // before the gap has not ended.
  bool is_short(int32_t length) const { return length < static_cast<int32_t>(settings_.travel(kPartMinMm)); }
  void count_part();
  void decide_part();
  void report_missing_front(const Stamp& at);
  void check_eyes();
  void act_on_moments(Place here);
  bool is_divert_near(Place here) const;
  uint16_t report(uint32_t number, Decision decision, bool moved, uint32_t at_ms, uint16_t travel_ms, bool awaits_chute = false);
  void count_reject(bool is_reject);
  void remove_parts();
  void remove_armed(Decision safe);
  void begin_counting();
  void invert_eyes();
  void switch_relay();
  void tick_camera();
  Place camera_position() const;

  // The members that every round uses come first, because the processor reads the first 64 bytes of an object faster.
  bool has_stored_settings_ : 1, is_committed_ : 1;
  // blocks_eye1_ is true while an object blocks photo-eye 1. is_counted1_ is true if the board has counted this object as a part.
  bool blocks_eye1_ : 1, is_counted1_ : 1;
  bool blocks_eye2_ : 1;
  // True after a part has left photo-eye 1 or 2, until the belt has moved by part_min_mm. An object that comes in this time belongs to the
  // same part.
  bool has_end1_ : 1, has_end2_ : 1;
  // True if the encoder has given no step for longer than the setting encoder_timeout_ms.
  bool is_encoder_silent_ : 1;
  // True after a photo-eye has changed while the encoder gave no steps. The next encoder step sets this member to false.
  bool has_unstepped_edge_ : 1;
  // While this member is true, missing and unmatched parts raise no fault.
  // It becomes false at the belt position ignore_missing_until_, or earlier when a counted part reaches photo-eye 2.
  bool ignores_missing_ : 1;
  bool is_relay_closed_ : 1;
  bool is_divert_near_ : 1;
  // True if this lane has no belt of its own, because its gate stands at another lane's belt (an additional gate).
  bool is_further_gate_ : 1;
  // True while the belt moves the first part_min_mm after a casting has left the chute's eye. An object that comes to the eye during this
  // travel is the same casting.
  bool has_chute_end_ : 1;
  // The value of the setting `eye_light_on` when the chute's eye was last read.
  bool is_chute_light_on_ : 1;
  uint8_t armed_count_ = 0;
  uint8_t test_ = kNoTest;
  BoardShared* shared_ = nullptr;
  // Number of encoder steps since the reset.
  uint32_t steps_ = 0;
  // The travel of a belt without an encoder since the reset, given as the time in microseconds that this travel takes at full speed. For
  // example, 4 s at half speed add 2,000,000.
  uint32_t travelled_us_ = 0;
  // Time since the last call of set_inputs().
  uint16_t unsampled_us_ = 0;
  Contact estop_open_, servo_power_missing_, belt_off_, gate_at_end_, chute_full_, chute_eye_;
  // Time of the last call of set_gate_inputs(), in microseconds.
  uint16_t gate_sampled_us_ = 0;
  Button button_;
  Contact reset_pressed_, bypass_on_;
  Drive drive_;
  Gate gate_;
  Eye eyes_[2];
  Armed armed_[kArmed];
  Place ends_[2] = {0, 0};
  // A part is missing if it has travelled this distance (eye_gap_mm + window_mm) without reaching photo-eye 2.
  Place missing_after_ = 0;
  // After a fault or a reset, it is normal that some parts are missing or unmatched. They raise no fault until the belt reaches this place.
  Place ignore_missing_until_ = 0;
  // Time at which the encoder turned last, and the number of steps at this time.
  uint32_t stepped_us_ = 0;
  uint32_t turned_steps_ = 0;
  // Time of the first change at a photo-eye while the encoder gives no steps. If no step follows in encoder_timeout_ms, fault 43 begins.
  uint32_t unstepped_edge_us_ = 0;
  uint32_t test_until_us_ = 0;
  // Duration and steps of the last measurement of the belt's speed. If the steps are 0, the speed is not known.
  uint16_t measured_duration_us_ = 0;
  uint8_t measured_steps_ = 0;
  // The measurement of the belt's speed that is running now: the number of steps so far, and the start time of the measurement.
  uint8_t new_steps_ = 0;
  uint16_t measuring_since_us_ = 0;
  // The number of times that a photo-eye has become blocked since the belt stopped.
  uint8_t edges_at_rest_ = 0;
  Camera camera_;
  uint8_t missing_in_a_row_ = 0, unmatched_in_a_row_ = 0;
  // The number of consecutive parts that were diverted or had no verdict. A passed part with a verdict sets the number to 0.
  uint8_t rejects_in_a_row_ = 0;
  PlantInterface plant_;
  uint8_t plant_signals_ = 0;
  uint8_t number_ = 0;
  Faults faults_;
  // Leading edges (position and time) of the objects that block photo-eyes 1 and 2 now.
  Edge edge1_, edge2_;
  EdgeLog edge_logs_[2];
  LaneCounters counters_ = {0, 0, 0, 0, 0};
  ChuteCounters chute_counters_ = {0, 0, 0};
  EndSwitch end_switch_;
  Chute chute_;
  // The position of the belt at the last change of the chute's eye, and its position when the last casting left this eye.
  Place chute_place_ = 0, chute_end_ = 0;
  // The last time at which the chute was not full.
  uint32_t chute_had_room_ms_ = 0;
  Settings settings_;
  Tracker tracker_;
};

}  // namespace castline
