// Runs the firmware on a PC. The firmware's files that access registers are left out.
// This program understands the same commands as the AVR simulator (firmware/simulator/control.c). So a test can use either program.
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "../board.h"

using namespace castline;

namespace {

const uint64_t kCyclesPerUs = 16;
const uint64_t kLoopCycles = kEyeSampleUs * kCyclesPerUs;
const uint64_t kByteCycles = 16000000 / 11520;
const uint64_t kWatchdogCycles = 250000 * kCyclesPerUs;

struct Pins {
  std::string eye[2], encoder[2], estop, power, belt, trigger, relay, servo, end_switch, chute_eye, chute_full, button;
};

const Pins kPins[kLanes] = {
    {{"A0", "L1"}, {"E4", "E5"}, "C7", "C3", "D7", "F0", "F4", "4A", "H5", "B3", "J1", "G5"},
    {{"A2", "A3"}, {"D3", "D2"}, "C6", "C2", "G2", "F1", "F5", "1A", "H6", "B2", "J0", "A1"},
    {{"A4", "A5"}, {"D1", "D0"}, "C5", "C1", "G1", "F2", "F6", "3A", "H1", "B1", "K3", "L0"},
    {{"A6", "A7"}, {"B4", "B6"}, "C4", "C0", "G0", "F3", "F7", "4B", "H0", "B0", "K7", "B7"},
};

const std::string kServoPins[kLanes] = {"H3", "B5", "E3", "H4"};
// The pins of each lane's lamp: green, yellow, red.
const std::string kLampPins[kLanes][3] = {{"K0", "K1", "K2"}, {"K4", "K5", "K6"}, {"L7", "L6", "L5"}, {"L4", "L3", "L2"}};

// The pins of the plant interfaces of lanes 1 and 2. The outputs are in the order of PlantSignal.
struct PlantPins {
  std::string outputs[7], reset, bypass;
};

const PlantPins kPlantPins[kPlantLanes] = {
    {{"F6", "L7", "F2", "E3", "C1", "L5", "L6"}, "C5", "G1"},
    {{"F7", "L4", "F3", "H4", "C0", "L2", "L3"}, "C4", "G0"},
};

struct Encoder {
  unsigned lane;
  uint64_t next, every;
  int step;
};

class Pc {
 public:
  explicit Pc(uint32_t clock_start_us) : clock_start_us_(clock_start_us) {
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      stored_[lane].settings.set_defaults();
      stored_[lane].state = kNothingStored;
      stored_[lane].faults = 0;
    }
    reset(kPower);
  }

  void command(const char* line) {
    unsigned long long cycle;
    char pin[8], word[16];
    int level, forward;
    char second[8];
    if (std::sscanf(line, "at %llu %7s %d", &cycle, pin, &level) == 3) {
      changes_.emplace(cycle, std::make_pair(std::string(pin), level != 0));
    } else if (std::sscanf(line, "run %llu", &cycle) == 1) {
      run(cycle);
    } else if (std::sscanf(line, "round %llu", &cycle) == 1) {
      round_cycles_ = cycle;
    } else if (std::strncmp(line, "rx ", 3) == 0) {
      unsigned value;
      for (const char* hex = line + 3; hex[0] && hex[1] && std::sscanf(hex, "%2x", &value) == 1; hex += 2) {
        wire_.push_back(static_cast<uint8_t>(value));
      }
    } else if (std::sscanf(line, "pin %7s %d", pin, &level) == 2) {
      set(pin, level != 0, now_);
    } else if (std::sscanf(line, "encoder %7s %7s %llu %d", pin, second, &cycle, &forward) == 4) {
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        if (kPins[lane].encoder[0] == pin) encoders_[lane] = {lane, now_ + cycle, cycle, forward ? 1 : -1};
      }
    } else if (std::sscanf(line, "reset %15s", word) == 1) {
      const int8_t cause = find_word(kCauseWords, word);
      reset(cause < 0 ? kUnknownCause : static_cast<Cause>(cause));
    } else if (std::strcmp(line, "hang") == 0) {
      hung_until_ = now_ + kWatchdogCycles;
    }
  }

 private:
  void reset(Cause cause) {
    board_.reset(new Board());
    run_ = run_ == 65535 ? 1 : static_cast<uint16_t>(run_ + 1);
    board_->start(now_us(), run_, cause, stored_);
    wire_.clear();
    ring_.clear();
    leaving_.clear();
    hung_until_ = 0;
    line_free_ = now_;
    std::printf("{\"event\": \"reset\", \"cycle\": %" PRIu64 ", \"cause\": \"%s\"}\n", now_, cause == kWatchdog ? "watchdog" : "asked");
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      // A reset does not change the levels at the input pins. So the board gets the present levels of its photo-eyes after the reset.
      for (uint8_t which = 1; which <= 2; ++which) board_->lane(lane).change_eye(which, !level(kPins[lane].eye[which - 1]), now_us());
      std::printf("{\"event\": \"pulse\", \"cycle\": %" PRIu64 ", \"servo\": \"%s\", \"us\": %u}\n", now_, kPins[lane].servo.c_str(),
                  stored_[lane].state == kStored ? stored_[lane].settings[kRestUs] : kNeutralUs);
      pulse_[lane] = 0;
    }
    turned_.fill(0);
  }

  // An input that is not connected is high because of its pull-up.
  bool level(const std::string& pin) const {
    const auto found = levels_.find(pin);
    return found == levels_.end() || found->second;
  }

  uint32_t now_us() const { return clock_start_us_ + static_cast<uint32_t>(now_ / kCyclesPerUs); }

  void set(const std::string& pin, bool value, uint64_t at) {
    const bool before = level(pin);
    levels_[pin] = value;
    if (before == value) return;
    const uint32_t at_us = clock_start_us_ + static_cast<uint32_t>(at / kCyclesPerUs);
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      for (uint8_t which = 1; which <= 2; ++which) {
        if (kPins[lane].eye[which - 1] == pin) {
          report_steps(lane);
          board_->lane(lane).change_eye(which, !value, at_us);
        }
      }
      for (int phase = 0; phase < 2; ++phase) {
        if (kPins[lane].encoder[phase] == pin) turn(lane);
      }
    }
  }

  void turn(uint8_t lane) {
    const bool a = level(kPins[lane].encoder[0]), b = level(kPins[lane].encoder[1]);
    const int phase = a ? (b ? 2 : 1) : (b ? 3 : 0);
    const int change = (phase - phase_[lane]) & 3;
    phase_[lane] = phase;
    if (change == 1) ++turned_[lane];
    if (change == 3) --turned_[lane];
  }

  void report_steps(uint8_t lane) {
    board_->lane(lane).add_steps(turned_[lane]);
    turned_[lane] = 0;
  }

  void run(uint64_t until) {
    while (now_ < until) {
      now_ = now_ + round_cycles_ < until ? now_ + round_cycles_ : until;
      if (hung_until_ != 0) {
        if (now_ >= hung_until_) reset(kWatchdog);
        continue;
      }
      loop();
    }
    std::printf("{\"event\": \"paused\", \"cycle\": %" PRIu64 "}\n", now_);
    std::fflush(stdout);
  }

  void loop() {
    board_->advance(now_us());
    for (Encoder& encoder : encoders_) {
      for (; encoder.every > 0 && encoder.next <= now_; encoder.next += encoder.every) turned_[encoder.lane] = static_cast<int16_t>(turned_[encoder.lane] + encoder.step);
    }
    while (!changes_.empty() && changes_.begin()->first <= now_) {
      const auto change = *changes_.begin();
      changes_.erase(changes_.begin());
      set(change.second.first, change.second.second, change.first);
    }
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      report_steps(lane);
      if (lane < kPlantLanes) {
        const PlantPins& plant = kPlantPins[lane];
        board_->lane(lane).set_plant_inputs(level(plant.reset) == kResetPressedLevel, level(plant.bypass) == kBypassOnLevel);
      }
      const Pins& pins = kPins[lane];
      board_->lane(lane).set_inputs(level(pins.estop) == kEstopOpenLevel, level(pins.power) == kServoPowerLevel,
                                    level(pins.belt) == kBeltRunsLevel);
      board_->lane(lane).set_gate_inputs({level(pins.end_switch) == kGateAtEndLevel, !level(pins.chute_eye),
                                          level(pins.chute_full) == kChuteFullLevel, level(pins.button) == kButtonPressedLevel});
    }
    receive();
    board_->move_gates();
    board_->tick();
    report();
    const uint16_t raised = board_->take_raised_run();
    if (raised != 0) run_ = raised;
    const uint8_t committed = board_->take_committed();
    for (uint8_t lane = 0; lane < kLanes; ++lane) {
      stored_[lane].faults = board_->lane(lane).faults().kept();
      if (!(committed & 1 << lane)) continue;
      stored_[lane].settings = board_->lane(lane).settings();
      stored_[lane].state = kStored;
    }
  }

  void receive() {
    while (!wire_.empty() && byte_due_ <= now_) {
      if (ring_.size() < kReceiveRing) {
        ring_.push_back(wire_.front());
      } else {
        board_->overrun(1);
      }
      wire_.pop_front();
      byte_due_ += kByteCycles;
    }
    for (int count = 0; count < kMaxFrameBytes && board_->can_receive() && !ring_.empty(); ++count) {
      board_->receive(ring_.front());
      ring_.pop_front();
    }
    if (wire_.empty()) byte_due_ = now_;
  }

  void report() {
    for (uint8_t index = 0; index < kLanes; ++index) {
      const Lane& lane = board_->lane(index);
      if (lane.pulse_us() != pulse_[index]) {
        pulse_[index] = lane.pulse_us();
        std::printf("{\"event\": \"pulse\", \"cycle\": %" PRIu64 ", \"servo\": \"%s\", \"us\": %u}\n", now_, kPins[index].servo.c_str(), pulse_[index]);
      }
      if (index >= kPlantLanes && board_->lane(index - kPlantLanes).uses_plant()) {
        for (uint8_t signal = 0; signal < 7; ++signal) {
          report_pin(kPlantPins[index - kPlantLanes].outputs[signal], board_->lane(index - kPlantLanes).plant_signals() >> signal & 1);
        }
        continue;
      }
      report_pin(kPins[index].trigger, lane.is_triggering());
      report_pin(kPins[index].relay, lane.is_relay_closed());
      report_lamp(index, lane.shown_lamp());
      if (lane.settings()[kUseSolenoid]) report_pin(kServoPins[index], lane.is_solenoid_on());
    }
    if (line_free_ > now_) return;
    if (!leaving_.empty()) {
      std::printf("{\"event\": \"tx\", \"cycle\": %" PRIu64 ", \"hex\": \"%s\"}\n", line_free_, leaving_.c_str());
      leaving_.clear();
    }
    // The buffer has exactly the size of the longest frame, so that a sanitizer detects any write beyond it.
    std::unique_ptr<char[]> buffer(new char[kMaxFrameBytes]);
    const uint8_t length = board_->next_frame(buffer.get());
    if (length == 0) return;
    line_free_ = now_ + length * kByteCycles;
    for (uint8_t index = 0; index < length; ++index) {
      char hex[3];
      std::snprintf(hex, sizeof hex, "%02x", static_cast<unsigned char>(buffer[index]));
      leaving_ += hex;
    }
  }

  void report_lamp(uint8_t index, Lamp lamp) {
    for (uint8_t colour = 0; colour < 3; ++colour) report_pin(kLampPins[index][colour], lamp == colour);
  }

  void report_pin(const std::string& pin, bool value) {
    const auto found = outputs_.find(pin);
    if (found != outputs_.end() && found->second == value) return;
    outputs_[pin] = value;
    std::printf("{\"event\": \"pin\", \"cycle\": %" PRIu64 ", \"pin\": \"%s\", \"level\": %d}\n", now_, pin.c_str(), value);
  }

  std::unique_ptr<Board> board_;
  StoredLane stored_[kLanes];
  uint16_t run_ = 0;
  uint32_t clock_start_us_;
  uint64_t round_cycles_ = kLoopCycles;
  uint64_t now_ = 0, byte_due_ = 0, line_free_ = 0, hung_until_ = 0;
  std::deque<uint8_t> wire_, ring_;
  std::string leaving_;  // the frame that is being sent, in hexadecimal
  std::multimap<uint64_t, std::pair<std::string, bool>> changes_;
  std::map<std::string, bool> levels_, outputs_;
  Encoder encoders_[kLanes] = {};
  std::array<int16_t, kLanes> turned_ = {};
  int phase_[kLanes] = {2, 2, 2, 2};  // both phases of each encoder are high because of their pull-ups
  uint16_t pulse_[kLanes] = {};
};

}  // namespace

int main(int count, char** words) {
  const uint32_t clock_start_us = count > 1 ? static_cast<uint32_t>(std::strtoul(words[1], nullptr, 10)) : 0;
  Pc pc(clock_start_us);
  std::printf("{\"event\": \"ready\", \"cycle\": 0, \"hz\": 16000000}\n");
  std::fflush(stdout);
  static char line[1 << 17];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    line[std::strcspn(line, "\n")] = '\0';
    if (std::strcmp(line, "quit") == 0) break;
    pc.command(line);
  }
  return 0;
}
