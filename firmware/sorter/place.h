// A position on the belt. It has only 24 bits, because the RAM holds the positions of up to 256 parts. After 2^24 - 1 comes 0, so only the
// difference of two positions has a meaning.
#pragma once
#include <stdint.h>

namespace castline {

// A position on the belt. Its unit is 1/16 of an encoder step. On a belt without an encoder, the unit is the distance that the belt
// moves in 64 us at full speed.
typedef uint32_t Place;
const Place kPlaceMask = 0xFFFFFFUL;
const uint8_t kPlacesPerStepLog2 = 4;
const uint8_t kPlacesPerStep = 1 << kPlacesPerStepLog2;
const uint16_t kPlacesPerSecond = 15625;
const uint8_t kMicrosPerPlaceLog2 = 6;

// Converts microseconds to units of Place (64 us each). On an 8-bit processor, `us << 2 >> 8` is four times faster than `us >> 6`.
inline Place places_of_us(uint32_t us) { return us << 2 >> 8; }

// The longest distance that the settings allow, in encoder steps. A step has 16 units of Place, so this distance has 8 million units.
// past() works with distances below 2^23 units (8.4 million).
const uint32_t kMaxSteps = 500000;

// Returns how far `place` is past `mark`. The result is negative if `place` is before `mark`.
inline int32_t past(Place place, Place mark) { return static_cast<int32_t>((place - mark) << 8) >> 8; }

}  // namespace castline
