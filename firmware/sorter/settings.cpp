#include "settings.h"

#include "crc16.h"

namespace castline {

const char kActionWords[] PROGMEM = "none divert pass stop";

const char kKeyWords[] PROGMEM =
    "encoder step_um eye_gap_mm window_mm part_min_mm part_max_mm spacing_mm gate_mm dwell_mm debounce_us trigger_ms "
    "trigger_pulse_ms rest_us out_us servo_ms no_verdict safe host_timeout_ms encoder_timeout_ms stuck_mm lost_limit "
    "use_estop use_servo_power lane_of autostart "
    "contact_ms trigger_mm step_nm use_belt run_up_mm run_down_mm eye_light_on "
    "use_end_switch chute_mm chute_window_mm chute_full_ms use_button "
    "reject_limit use_plant result_ms use_solenoid";

namespace {

// Marks a setting whose value is a word, such as `divert`. In kTable, this mark stands in place of the minimum.
const uint16_t kWordMark = 0xFFFF;

// The minimum, the maximum and the default of each setting.
const uint16_t kTable[kKeys][3] PROGMEM = {
    {0, 1, 0},                      // encoder
    {1, 10000, 200},                // step_um
    {50, 20000, 800},               // eye_gap_mm
    {5, 500, 40},                   // window_mm
    {1, 200, 5},                    // part_min_mm
    {10, 2000, 150},                // part_max_mm
    {0, 2000, 60},                  // spacing_mm
    {1, 2000, 20},                  // gate_mm
    {10, 2000, 60},                 // dwell_mm
    {0, 50000, 500},                // debounce_us
    {0, 1000, 20},                  // trigger_ms
    {1, 100, 5},                    // trigger_pulse_ms
    {544, 2400, 1000},              // rest_us
    {544, 2400, 2000},              // out_us
    {20, 2000, 80},                 // servo_ms
    {kWordMark, kStop, kDivert},    // no_verdict
    {kWordMark, kStop, kDivert},    // safe
    {300, 60000, 2000},             // host_timeout_ms
    {50, 10000, 500},               // encoder_timeout_ms
    {50, 20000, 1000},              // stuck_mm
    {1, 50, 5},                     // lost_limit
    {0, 1, 1},                      // use_estop
    {0, 1, 0},                      // use_servo_power
    {0, 4, 0},                      // lane_of
    {0, 1, 1},                      // autostart
    {5, 20, 10},                    // contact_ms
    {0, 20000, 0},                  // trigger_mm
    {0, 999, 0},                    // step_nm
    {0, 1, 0},                      // use_belt
    {0, 2000, 0},                   // run_up_mm
    {0, 2000, 0},                   // run_down_mm
    {0, 1, 0},                      // eye_light_on
    {0, 1, 0},                      // use_end_switch
    {0, 20000, 0},                  // chute_mm
    {5, 2000, 100},                 // chute_window_mm
    {0, 10000, 0},                  // chute_full_ms
    {0, 1, 0},                      // use_button
    {0, 250, 0},                    // reject_limit
    {0, 1, 0},                      // use_plant
    {5, 1000, 50},                  // result_ms
    {0, 1, 0},                      // use_solenoid
};

// Returns 1000 * count / step_nm, rounded down. `count` can be 384 million. Then 8 * count fits into 32 bits, but 1000 * count does not.
// So the function multiplies by 8 first, and by 125 after the division.
uint32_t divide_by_step(uint32_t count, uint32_t step_nm) {
  return 8 * count / step_nm * 125 + 8 * count % step_nm * 125 / step_nm;
}

uint16_t add_to_crc(uint16_t crc, WordList list, uint8_t index) {
  for (; index > 0; ++list) {
    if (pgm_read_byte(list) == ' ') --index;
  }
  for (char letter; (letter = static_cast<char>(pgm_read_byte(list))) != ' ' && letter != '\0'; ++list) {
    crc = crc16(crc, static_cast<uint8_t>(letter));
  }
  return crc;
}

uint16_t add_to_crc(uint16_t crc, uint16_t number) {
  uint16_t divisor = 10000;
  while (divisor > 1 && number < divisor) divisor /= 10;
  for (; divisor > 0; divisor /= 10) crc = crc16(crc, static_cast<uint8_t>('0' + number / divisor % 10));
  return crc;
}

}  // namespace

Bounds bounds(uint8_t key) {
  const uint16_t* row = kTable[key];
  const uint16_t least = pgm_read_word(row);
  const bool word = least == kWordMark;
  return {word ? static_cast<uint16_t>(kDivert) : least, pgm_read_word(row + 1), pgm_read_word(row + 2), word};
}

bool read_value(uint8_t key, const char* text, uint16_t& value) {
  const Bounds limit = bounds(key);
  uint32_t number;
  if (limit.word) {
    const int8_t index = find_word(kActionWords, text);
    if (index < 0) return false;
    number = static_cast<uint32_t>(index);
  } else if (!read_number(text, number)) {
    return false;
  }
  if (number < limit.least || number > limit.most) return false;
  value = static_cast<uint16_t>(number);
  return true;
}

void Settings::set_defaults() {
  for (uint8_t key = 0; key < kKeys; ++key) value[key] = bounds(key).standard;
}

Place Settings::places(uint32_t mm) const {
  // `mm` is at most 24,000, so mm * per_mm fits into 32 bits.
  const uint16_t per_mm = value[kEncoder] ? 1000 * kPlacesPerStep : kPlacesPerSecond;
  if (value[kStepNm] == 0) return mm * per_mm / value[kStepUm];
  return divide_by_step(mm * per_mm, step_nm());
}

uint32_t Settings::steps(uint32_t mm) const { return divide_by_step(mm * 1000, step_nm()); }

bool Settings::is_consistent() const {
  // These distances are in steps, rounded down as in firmware/PROTOCOL.md. They fit into 32 bits, because the largest one is 24 million
  // steps: 24,000 mm with steps of 1 um.
  const uint32_t eyes = steps(value[kEyeGapMm] + uint32_t{value[kWindowMm]}), stuck = steps(value[kStuckMm]);
  return value[kPartMinMm] < value[kPartMaxMm] && value[kGateMm] >= value[kPartMinMm] &&
         2 * value[kWindowMm] <= value[kEyeGapMm] && value[kRestUs] != value[kOutUs] &&
         eyes <= kMaxSteps && stuck <= kMaxSteps && is_gate_within_reach(step_nm()) &&
         value[kTriggerMm] <= (value[kEncoder] ? value[kEyeGapMm] : 0) && !(value[kUsePlant] && value[kLaneOf]);
}

bool Settings::is_gate_within_reach(uint32_t step_nm) const {
  const uint32_t dwell_mm = value[kDwellMm], chute_mm = value[kChuteMm] > 0 ? uint32_t{value[kChuteMm]} + value[kChuteWindowMm] : 0;
  return divide_by_step((value[kGateMm] + (dwell_mm > chute_mm ? dwell_mm : chute_mm)) * 1000, step_nm) <= kMaxSteps;
}

uint16_t Settings::digest() const {
  uint16_t crc = kCrcFirst;
  for (uint8_t key = 0; key < kKeys; ++key) {
    if (key > 0) crc = crc16(crc, ' ');
    crc = crc16(add_to_crc(crc, kKeyWords, key), '=');
    crc = bounds(key).word ? add_to_crc(crc, kActionWords, static_cast<uint8_t>(value[key])) : add_to_crc(crc, value[key]);
  }
  return crc;
}

}  // namespace castline
