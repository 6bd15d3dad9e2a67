#include "hardware.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <avr/wdt.h>

#include "link.h"
#include "memory.h"
#include "reset_marks.h"
#include "sensors.h"
#include "servo.h"

namespace castline {
namespace hardware {

namespace {

// True for a few milliseconds before a gate moves. While `quiet` is true, no frame is read or written, because frames could delay the gate.
bool quiet = false;
// The value of `quiet` at the beginning of this round of the main loop. If `was_quiet` is true, this round reads no bytes from the host.
bool was_quiet = false;

// Time at which the lamps were set last, in units of 16 ms.
uint8_t lamps_set_at = 0;

// Returns the bits for a lane's lamp: 1 is green, 2 is yellow, 4 is red, and 0 is dark.
uint8_t lamp_bits(Lamp lamp) { return lamp == kDark ? 0 : static_cast<uint8_t>(1 << lamp); }

// Returns the three bits of a lamp in reverse order. On port L, the highest of the three bits is green, and the lowest is red.
uint8_t mirrored(uint8_t bits) { return static_cast<uint8_t>((bits & 1) << 2 | (bits & 2) | bits >> 2); }

// Returns the bits for three signals of a plant interface: 1 is `busy`, 2 is `buzzer`, and 4 is `fault`.
// The plant interface of lane 1 sends these signals at the lamp pins of lane 3, and the interface of lane 2 at the lamp pins of lane 4.
uint8_t slow_plant_bits(uint8_t signals) {
  return static_cast<uint8_t>((signals & kBusySignal ? 1 : 0) | (signals & kBuzzerSignal ? 2 : 0) | (signals & kFaultSignal ? 4 : 0));
}

// Sets the heartbeat's pin of a plant interface. If the lane does not use its plant interface, the pin is an input with a pull-up.
void set_heartbeat(uint8_t index, const Lane& lane) {
  const uint8_t pin = static_cast<uint8_t>(_BV(PC1) >> index);
  const bool is_high = !lane.uses_plant() || lane.plant_signals() & kHeartbeatSignal;
  DDRC = static_cast<uint8_t>(lane.uses_plant() ? DDRC | pin : DDRC & ~pin);
  PORTC = static_cast<uint8_t>(is_high ? PORTC | pin : PORTC & ~pin);
}

// Sets the lamps at most once in 16 ms. The other rounds of the main loop skip this work, so they are short.
void set_lamps(Board& board) {
  const uint8_t sixtieth = static_cast<uint8_t>(board.clock().now().ms >> 4);
  if (sixtieth == lamps_set_at) return;
  lamps_set_at = sixtieth;
  uint8_t lamps[kLanes];
  for (uint8_t index = 0; index < kLanes; ++index) lamps[index] = lamp_bits(board.lane(index).shown_lamp());
  for (uint8_t index = 0; index < kPlantLanes; ++index) {
    if (board.lane(index).uses_plant()) lamps[index + kPlantLanes] = slow_plant_bits(board.lane(index).plant_signals());
    set_heartbeat(index, board.lane(index));
  }
  // Bits 3 and 7 of port K are inputs, whose pull-ups stay on.
  PORTK = static_cast<uint8_t>(lamps[0] | lamps[1] << 4 | 0x88);
  PORTL = static_cast<uint8_t>((PORTL & 0x03) | mirrored(lamps[2]) << 5 | mirrored(lamps[3]) << 2);
  if (board.lane(kLanes - 1).settings()[kUseButton]) {
    // D13 is the input of a push-button, with its pull-up.
    DDRB &= static_cast<uint8_t>(~_BV(PB7));
    PORTB |= _BV(PB7);
    return;
  }
  DDRB |= _BV(PB7);
  if (lamps_set_at & 32) {
    PORTB |= _BV(PB7);
  } else {
    PORTB &= static_cast<uint8_t>(~_BV(PB7));
  }
}

}  // namespace

void begin(Board& board) {
  cli();
  const Cause cause = reset_marks::begin();
  StoredLane stored[kLanes];
  for (uint8_t lane = 0; lane < kLanes; ++lane) {
    memory::read(lane, stored[lane]);
    const bool is_stored = stored[lane].state == kStored;
    const bool is_plant = lane >= kPlantLanes && stored[lane - kPlantLanes].settings[kUsePlant];
    const bool has_pulses = !is_plant && !(is_stored && stored[lane].settings[kUseSolenoid]);
    servo::begin(lane, !has_pulses ? 0 : is_stored ? stored[lane].settings[kRestUs] : kNeutralUs);
  }
  PORTF = 0;
  DDRF = 0xFF;
  DDRK = 0x77;
  DDRL = 0xFC;
  sensors::begin();
  link::begin();
  sei();
  const uint16_t run = memory::count_boot();
  board.start(sensors::now_us(), run, cause, stored);
  set_sleep_mode(SLEEP_MODE_IDLE);
  wdt_enable(WDTO_250MS);
}

void read(Board& board) {
  wdt_reset();
  reset_marks::beat(board.is_host_talking());
  board.advance(sensors::now_us());
  sensors::read(board);
  board.overrun(link::take_overrun());
  // Each round of the main loop reads at most kMaxFrameBytes bytes from the host, because many bytes at once could delay the gates.
  uint8_t byte;
  for (uint8_t count = 0; count < kMaxFrameBytes && !quiet && board.can_receive() && link::read(byte); ++count) board.receive(byte);
}

void drive_gates(Board& board) {
  was_quiet = quiet;
  quiet = false;
  for (uint8_t index = 0; index < kLanes; ++index) {
    const Lane& lane = board.lane(index);
    quiet = quiet || lane.gate_moves_soon();
    if (index >= kPlantLanes && board.lane(index - kPlantLanes).uses_plant()) {
      // The servo pin of this lane carries the signal `reject` of another lane's plant interface.
      servo::set_level(index, board.lane(index - kPlantLanes).plant_signals() & kRejectSignal);
    } else if (lane.settings()[kUseSolenoid]) {
      servo::set_level(index, lane.is_solenoid_on());
    } else {
      servo::set_pulse(index, lane.pulse_us());
    }
  }
  for (uint8_t index = 0; index < kLanes; ++index) servo::time_pulse(index, board.lane(index).gate_moves_soon());
  quiet = quiet || servo::is_pulse_waiting();
}

void write(Board& board) {
  uint8_t triggers = 0, relays = 0;
  for (uint8_t index = 0; index < kLanes; ++index) {
    const bool is_plant = index >= kPlantLanes && board.lane(index - kPlantLanes).uses_plant();
    const uint8_t signals = is_plant ? board.lane(index - kPlantLanes).plant_signals() : uint8_t{0};
    const Lane& lane = board.lane(index);
    // If another lane uses this lane's pins for its plant interface, the pins show the signals of that interface.
    if (is_plant ? signals & kValidSignal : lane.is_triggering()) triggers |= static_cast<uint8_t>(1 << index);
    if (is_plant ? signals & kReadySignal : lane.is_relay_closed()) relays |= static_cast<uint8_t>(0x10 << index);
  }
  PORTF = triggers | relays;
  set_lamps(board);
  // The board must answer each command before it sends the next event. If `was_quiet` is true, this round of the main loop has not read the
  // received bytes. They can contain a command, so this round sends no frame.
  if (!quiet && !was_quiet && link::is_idle()) {
    const uint8_t length = board.next_frame(link::buffer());
    if (length > 0) link::send(length);
  }
  memory::tick(board);
  // Sleeps until the next interrupt, which comes within 200 us because the eyes are read at this interval.
  if (!sensors::take_sampled()) sleep_mode();
}

}  // namespace hardware
}  // namespace castline
