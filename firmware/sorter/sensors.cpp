#include "sensors.h"

#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>
#include <util/delay.h>

#include "reset_marks.h"

namespace castline {
namespace sensors {

namespace {

// Timer 5 counts at 16 MHz / 8, which is two counts per microsecond.
const uint8_t kCountsPerUs = 2;
const uint16_t kSampleCounts = kEyeSampleUs * kCountsPerUs;
// Pins of port A with photo-eyes. PA1 is free, because photo-eye 2 of lane 1 is connected to timer 5.
const uint8_t kSampled = 0b11111101;
// Photo-eye 2 of lane 1 is not read from port A, so bit 1 of port A is free. In `levels` and `changed`, this bit stands for the eye.
const uint8_t kCaptured = 0b00000010;

volatile uint32_t overflows = CASTLINE_CLOCK_START_US >> 15;

// Levels of the photo-eyes, and the changes since the last read(). Bits 0 and 1 are the photo-eyes 1 and 2 of lane 1, bits 2 and 3 are the
// photo-eyes of lane 2, and so on.
volatile uint8_t levels = 0xFF, changed = 0;
struct Stamp5 {
  // Count of timer 5 when the photo-eye changed.
  uint16_t count;
  // Number of encoder steps of the lane when the photo-eye changed.
  uint16_t steps;
};
volatile Stamp5 stamps[2 * kLanes];

volatile bool sampled = false;

volatile uint16_t steps[kLanes];
uint16_t reported_steps[kLanes];
uint8_t phases[kLanes];

void stamp(uint8_t eye, uint16_t count) {
  stamps[eye].count = count;
  stamps[eye].steps = steps[eye / 2];
}

// Counts one step when the level of phase A or B has changed. When the belt runs forward, A changes before B.
// If A and B have changed together, this is noise, and no step is counted.
void turn(uint8_t lane, bool a, bool b) {
  // The quarter (0..3) of the encoder's cycle. When the belt runs forward, the order is 0, 1, 2, 3, 0.
  const uint8_t phase = static_cast<uint8_t>(a ? (b ? 2 : 1) : (b ? 3 : 0));
  const uint8_t change = (phase - phases[lane]) & 3;
  phases[lane] = phase;
  if (change == 1) steps[lane] = steps[lane] + 1;
  if (change == 3) steps[lane] = steps[lane] - 1;
}

// The lane whose gate inputs were read last.
uint8_t gate_lane = 0;

GateInputs gate_inputs(bool end_switch, bool chute_eye, bool chute_full, bool button) {
  return {end_switch == kGateAtEndLevel, !chute_eye, chute_full == kChuteFullLevel, button == kButtonPressedLevel};
}

GateInputs read_gate(uint8_t lane) {
  if (lane == 0) return gate_inputs(PINH & _BV(PH5), PINB & _BV(PB3), PINJ & _BV(PJ1), PING & _BV(PG5));
  if (lane == 1) return gate_inputs(PINH & _BV(PH6), PINB & _BV(PB2), PINJ & _BV(PJ0), PINA & _BV(PA1));
  if (lane == 2) return gate_inputs(PINH & _BV(PH1), PINB & _BV(PB1), PINK & _BV(PK3), PINL & _BV(PL0));
  // While D13 is an output for the LED, no button is connected to it.
  return gate_inputs(PINH & _BV(PH0), PINB & _BV(PB0), PINK & _BV(PK7), (PINB | DDRB) & _BV(PB7));
}

void report_steps(Board& board, uint8_t lane, uint16_t counted) {
  if (counted == reported_steps[lane]) return;
  board.lane(lane).add_steps(static_cast<int16_t>(counted - reported_steps[lane]));
  reported_steps[lane] = counted;
}

}  // namespace

void begin() {
  // Switches on the pull-ups of eyes, emergency stops, servo supplies and belt signals, and of the inputs of gates and chutes.
  PORTA = 0xFF;
  PORTC = 0xFF;
  PORTL |= _BV(PL0) | _BV(PL1);
  PORTJ |= _BV(PJ0) | _BV(PJ1);
  PORTK |= _BV(PK3) | _BV(PK7);
  PORTH |= _BV(PH0) | _BV(PH1) | _BV(PH5) | _BV(PH6);
  PORTD |= _BV(PD7);
  PORTG |= _BV(PG0) | _BV(PG1) | _BV(PG2) | _BV(PG5);
  // Encoders are inputs with pull-ups and an interrupt at every edge.
  PORTE |= _BV(PE4) | _BV(PE5);
  PORTD |= _BV(PD0) | _BV(PD1) | _BV(PD2) | _BV(PD3);
  PORTB |= _BV(PB0) | _BV(PB1) | _BV(PB2) | _BV(PB3) | _BV(PB4) | _BV(PB6);
  EICRA = _BV(ISC00) | _BV(ISC10) | _BV(ISC20) | _BV(ISC30);
  EICRB = _BV(ISC40) | _BV(ISC50);
  EIFR = 0xFF;
  EIMSK = _BV(INT0) | _BV(INT1) | _BV(INT2) | _BV(INT3) | _BV(INT4) | _BV(INT5);
  PCMSK0 = _BV(PCINT4) | _BV(PCINT6);
  PCICR = _BV(PCIE0);
  // Timer 5 is the clock, so it is never stopped or reset. It also records the time of each edge at photo-eye 2 of lane 1.
  TCCR5B = 0;
  TCCR5A = 0;
  TCNT5 = 0;
  TCCR5B = _BV(ICNC5) | _BV(CS51);
  // The timer records only edges. If photo-eye 2 of lane 1 is low from the beginning, there is no edge, so its level is read here. The
  // delay gives the pull-up time to charge the wire.
  _delay_us(20);
  if (!(PINL & _BV(PL1))) {
    TCCR5B |= _BV(ICES5);
    levels = levels & static_cast<uint8_t>(~kCaptured);
    changed = kCaptured;
  }
  OCR5A = kSampleCounts;
  TIMSK5 = _BV(TOIE5) | _BV(OCIE5A) | _BV(ICIE5);
}

uint32_t now_us() {
  uint16_t count;
  uint32_t high;
  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
    count = TCNT5;
    high = overflows;
    if ((TIFR5 & _BV(TOV5)) && count < 0x8000) ++high;
  }
  return high << 15 | count >> 1;
}

void read(Board& board) {
  for (uint8_t eye = 0; changed != 0 && eye < 2 * kLanes; ++eye) {
    const uint8_t bit = static_cast<uint8_t>(1 << eye);
    if (!(changed & bit)) continue;
    uint16_t count, step, ago;
    bool level;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {
      changed = changed & static_cast<uint8_t>(~bit);
      count = stamps[eye].count;
      step = stamps[eye].steps;
      level = levels & bit;
      ago = static_cast<uint16_t>(TCNT5 - count);
    }
    const uint8_t lane = eye / 2;
    report_steps(board, lane, step);
    board.lane(lane).change_eye(static_cast<uint8_t>(1 + eye % 2), !level, now_us() - ago / kCountsPerUs);
  }
  uint8_t inputs = PINC;
  // Bits 3 to 0 of `belts` are the belt signals of lanes 1 to 4.
  uint8_t belts = static_cast<uint8_t>((PIND & _BV(PD7)) >> 4 | (PING & 0x07));
  for (uint8_t lane = 0; lane < kLanes; ++lane) {
    uint16_t step;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { step = steps[lane]; }
    report_steps(board, lane, step);
    const bool estop = inputs & 0x80, power = inputs & 0x08, belt = belts & 0x08;
    if (lane < kPlantLanes) {
      // The plant interface of lane n uses the pins of lane n + kPlantLanes.
      const bool reset = inputs << kPlantLanes & 0x80, bypass = belts << kPlantLanes & 0x08;
      board.lane(lane).set_plant_inputs(reset == kResetPressedLevel, bypass == kBypassOnLevel);
    }
    inputs = static_cast<uint8_t>(inputs << 1);
    belts = static_cast<uint8_t>(belts << 1);
    board.lane(lane).set_inputs(estop == kEstopOpenLevel, power == kServoPowerLevel, belt == kBeltRunsLevel);
  }
  // The inputs of gates and chutes change slowly. So each round of the main loop reads them for only one lane. This keeps the rounds short.
  gate_lane = static_cast<uint8_t>((gate_lane + 1) % kLanes);
  board.lane(gate_lane).set_gate_inputs(read_gate(gate_lane));
}

bool take_sampled() {
  const bool was = sampled;
  sampled = false;
  return was;
}

ISR(TIMER5_OVF_vect) { overflows = overflows + 1; }

ISR(TIMER5_COMPA_vect) {
  OCR5A += kSampleCounts;
  sampled = true;
  reset_marks::count_sample();
  const uint8_t now = PINA;
  uint8_t different = static_cast<uint8_t>((now ^ levels) & kSampled);
  if (different == 0) return;
  levels = static_cast<uint8_t>((levels & kCaptured) | (now & kSampled));
  changed = changed | different;
  const uint16_t count = TCNT5;
  for (uint8_t eye = 0; different != 0; ++eye, different = static_cast<uint8_t>(different >> 1)) {
    if (different & 1) stamp(eye, count);
  }
}

ISR(TIMER5_CAPT_vect) {
  const uint16_t count = ICR5;
  // This interrupt comes at each change of the level. The new level is read from the pin. If the firmware inverted the stored level
  // instead, all levels after a lost interrupt would be wrong.
  // The capture flag is not cleared here, because the simulator simavr would then also clear a pending overflow of the timer.
  const bool high = PINL & _BV(PL1);
  TCCR5B = high ? TCCR5B & static_cast<uint8_t>(~_BV(ICES5)) : TCCR5B | _BV(ICES5);
  if (high == static_cast<bool>(levels & kCaptured)) return;
  levels = high ? levels | kCaptured : levels & static_cast<uint8_t>(~kCaptured);
  changed = changed | kCaptured;
  stamp(1, count);
}

ISR(INT4_vect) { turn(0, PINE & _BV(PE4), PINE & _BV(PE5)); }
ISR(INT5_vect, ISR_ALIASOF(INT4_vect));
ISR(INT3_vect) { turn(1, PIND & _BV(PD3), PIND & _BV(PD2)); }
ISR(INT2_vect, ISR_ALIASOF(INT3_vect));
ISR(INT1_vect) { turn(2, PIND & _BV(PD1), PIND & _BV(PD0)); }
ISR(INT0_vect, ISR_ALIASOF(INT1_vect));
ISR(PCINT0_vect) { turn(3, PINB & _BV(PB4), PINB & _BV(PB6)); }

}  // namespace sensors
}  // namespace castline
