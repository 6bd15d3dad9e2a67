#include "memory.h"

#include <avr/eeprom.h>

#include "crc16.h"

namespace castline {
namespace memory {

namespace {

// Must be increased when the order or the number of settings changes. Otherwise the firmware would misread stored settings.
const uint8_t kLayout = 1;
// Content of an EEPROM cell that was never written.
const uint8_t kBlank = 0xFF;
const uint8_t kImage = 1 + sizeof(Settings) + 2;

// Bit mask of the lanes whose settings are not completely stored yet.
uint8_t dirty = 0;
// Lane and offset of the byte that tick() writes next.
uint8_t lane = 0, offset = 0;

uint8_t* address(uint8_t has_lane, uint8_t at) { return reinterpret_cast<uint8_t*>(16 + 64U * has_lane + at); }

uint16_t checksum(const Settings& settings) {
  uint16_t crc = crc16(kCrcFirst, kLayout);
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&settings);
  for (uint8_t index = 0; index < sizeof settings; ++index) crc = crc16(crc, bytes[index]);
  return crc;
}

uint8_t image(const Settings& settings, uint8_t at) {
  if (at == 0) return kLayout;
  if (at <= sizeof settings) return reinterpret_cast<const uint8_t*>(&settings)[at - 1];
  const uint16_t crc = checksum(settings);
  return static_cast<uint8_t>(at == kImage - 1 ? crc >> 8 : crc);
}

// Returns the number of resets in copy 0 or copy 1, or 0 if this copy is damaged or was never written.
uint16_t boot_copy(uint8_t copy) {
  const uint16_t run = eeprom_read_word(reinterpret_cast<const uint16_t*>(4U * copy));
  const uint16_t check = eeprom_read_word(reinterpret_cast<const uint16_t*>(4U * copy + 2));
  return run == static_cast<uint16_t>(~check) ? run : 0;
}

}  // namespace

uint16_t count_boot() {
  const uint16_t first = boot_copy(0), second = boot_copy(1);
  const bool second_is_newer = first == 0 || (second != 0 && static_cast<uint16_t>(second - first) < 0x8000);
  uint16_t run = static_cast<uint16_t>((second_is_newer ? second : first) + 1);
  if (run == 0) run = 1;
  const uint8_t older = second_is_newer ? 0 : 1;
  // Waiting for the EEPROM takes some milliseconds. No gate moves yet, so nothing is late.
  eeprom_update_word(reinterpret_cast<uint16_t*>(4U * older), run);
  eeprom_update_word(reinterpret_cast<uint16_t*>(4U * older + 2), static_cast<uint16_t>(~run));
  return run;
}

Stored read(uint8_t has_lane, Settings& settings) {
  const uint8_t layout = eeprom_read_byte(address(has_lane, 0));
  eeprom_read_block(&settings, address(has_lane, 1), sizeof settings);
  const uint16_t crc = eeprom_read_word(reinterpret_cast<const uint16_t*>(address(has_lane, 1 + sizeof settings)));
  const bool whole = layout == kLayout && crc == checksum(settings) && settings.is_consistent();
  if (!whole) settings.set_defaults();
  return whole ? kStored : layout == kBlank ? kNothingStored : kDamaged;
}

void tick(Board& board) {
  const uint8_t committed = board.take_committed();
  if (committed != 0) {
    dirty |= committed;
    offset = 0;
  }
  if (dirty == 0 || !eeprom_is_ready()) return;
  if (!(dirty & (1 << lane))) {
    lane = static_cast<uint8_t>((lane + 1) % kLanes);
    offset = 0;
    return;
  }
  const uint8_t byte = image(board.lane(lane).settings(), offset);
  if (eeprom_read_byte(address(lane, offset)) != byte) eeprom_write_byte(address(lane, offset), byte);
  if (++offset == kImage) dirty &= static_cast<uint8_t>(~(1 << lane));
}

}  // namespace memory
}  // namespace castline
