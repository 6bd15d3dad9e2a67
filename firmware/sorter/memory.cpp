#include "memory.h"

#include <avr/eeprom.h>

#include "crc16.h"

namespace castline {
namespace memory {

namespace {

// The layout number says how many settings are stored. Only the number 1 has another meaning: it stands for kFirstLayoutKeys settings.
// New settings are always added at the end, so a firmware can read the settings that an older or a newer firmware has stored.
const uint8_t kLayout = kKeys, kFirstLayout = 1;
const uint8_t kFirstLayoutKeys = kLaneOf + 1, kMostKeys = 62;
// Content of an EEPROM cell that was never written.
const uint8_t kBlank = 0xFF;
const uint8_t kImage = 1 + sizeof(Settings) + 2;
static_assert(kKeys <= kMostKeys, "the settings of a lane must fit into its two areas of 64 bytes");

// Bit mask of the lanes whose settings are not completely stored yet.
uint8_t dirty = 0;
// tick() writes the settings byte by byte. `offset` is the index of the next byte in the settings of `lane`.
uint8_t lane = 0, offset = 0;
// The lane whose faults tick() compares next with the faults in the EEPROM.
uint8_t compared_lane = 0;
// The new run number from the command RAISE. The EEPROM stores the run number in two copies of four bytes.
// `raised_left` says how many of these eight bytes tick() must still write.
uint16_t raised_run = 0;
uint8_t raised_left = 0;

uint8_t* address(uint8_t has_lane, uint8_t at) {
  const uint16_t area = at < 64 ? 16 : 512 - 64;
  return reinterpret_cast<uint8_t*>(area + 64U * has_lane + at);
}

uint8_t* fault_address(uint8_t has_lane, uint8_t copy) {
  return reinterpret_cast<uint8_t*>(272U + 2 * sizeof(FaultSet) * has_lane + sizeof(FaultSet) * copy);
}

uint8_t image(const Settings& settings, uint8_t at) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&settings);
  if (at == 0) return kLayout;
  if (at <= sizeof settings) return bytes[at - 1];
  uint16_t crc = crc16(kCrcFirst, kLayout);
  for (uint8_t index = 0; index < sizeof settings; ++index) crc = crc16(crc, bytes[index]);
  return static_cast<uint8_t>(at == kImage - 1 ? crc >> 8 : crc);
}

Stored read_settings(uint8_t has_lane, Settings& settings) {
  settings.set_defaults();
  const uint8_t layout = eeprom_read_byte(address(has_lane, 0));
  const uint8_t keys = layout == kFirstLayout ? kFirstLayoutKeys : layout;
  // Byte 2 is the upper byte of the first setting. In stored settings, it is never 0xFF. If no settings were ever stored, all bytes are
  // 0xFF, so byte 2 shows whether settings were stored.
  if (layout == kBlank) return eeprom_read_byte(address(has_lane, 2)) == kBlank ? kNothingStored : kDamaged;
  if (keys < kFirstLayoutKeys || keys > kMostKeys) return kDamaged;
  const uint8_t bytes = static_cast<uint8_t>(keys * sizeof settings.value[0]);
  uint16_t crc = crc16(kCrcFirst, layout);
  for (uint8_t index = 1; index <= bytes; ++index) crc = crc16(crc, eeprom_read_byte(address(has_lane, index)));
  const uint8_t low = eeprom_read_byte(address(has_lane, static_cast<uint8_t>(1 + bytes)));
  const uint8_t high = eeprom_read_byte(address(has_lane, static_cast<uint8_t>(2 + bytes)));
  if (crc != (static_cast<uint16_t>(high) << 8 | low)) return kDamaged;
  for (uint8_t index = 0; index < bytes && index < sizeof settings; ++index) {
    reinterpret_cast<uint8_t*>(&settings)[index] = eeprom_read_byte(address(has_lane, static_cast<uint8_t>(1 + index)));
  }
  if (settings.is_consistent()) return kStored;
  settings.set_defaults();
  return kDamaged;
}

// Writes at most one byte of a lane's faults. Returns whether a byte was written.
bool write_faults(uint8_t has_lane, FaultSet faults) {
  faults = ~faults;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&faults);
  for (uint8_t index = 0; index < 2 * sizeof faults; ++index) {
    uint8_t* cell = fault_address(has_lane, 0) + index;
    if (eeprom_read_byte(cell) == bytes[index % sizeof faults]) continue;
    eeprom_write_byte(cell, bytes[index % sizeof faults]);
    return true;
  }
  return false;
}

// The EEPROM has two copies of the number of resets. Returns the number in copy 0 or 1, or 0 if this copy is damaged or was never written.
uint16_t boot_copy(uint8_t copy) {
  const uint16_t run = eeprom_read_word(reinterpret_cast<const uint16_t*>(4U * copy));
  const uint16_t check = eeprom_read_word(reinterpret_cast<const uint16_t*>(4U * copy + 2));
  return run == static_cast<uint16_t>(~check) ? run : 0;
}

// Writes the next byte of the new run number `raised_run`. The EEPROM stores the run number in two copies. Copy 1 is written completely
// before copy 0, so a power cut can damage only one copy.
void write_raised_run() {
  --raised_left;
  const uint16_t word = raised_left % 4 < 2 ? raised_run : static_cast<uint16_t>(~raised_run);
  const uint8_t byte = static_cast<uint8_t>(raised_left % 2 == 0 ? word : word >> 8);
  uint8_t* cell = reinterpret_cast<uint8_t*>(static_cast<uint16_t>(raised_left));
  if (eeprom_read_byte(cell) != byte) eeprom_write_byte(cell, byte);
}

}  // namespace

uint16_t count_boot() {
  const uint16_t first = boot_copy(0), second = boot_copy(1);
  const bool second_is_newer = first == 0 || (second != 0 && static_cast<uint16_t>(second - first) < 0x8000);
  uint16_t run = static_cast<uint16_t>((second_is_newer ? second : first) + 1);
  if (run == 0) run = 1;
  const uint8_t older = second_is_newer ? 0 : 1;
  // Writing takes some milliseconds. This delays no gate, because the board has just been reset and moves no gate yet.
  eeprom_update_word(reinterpret_cast<uint16_t*>(4U * older), run);
  eeprom_update_word(reinterpret_cast<uint16_t*>(4U * older + 2), static_cast<uint16_t>(~run));
  return run;
}

void read(uint8_t has_lane, StoredLane& stored) {
  stored.state = read_settings(has_lane, stored.settings);
  const FaultSet first = eeprom_read_dword(reinterpret_cast<const uint32_t*>(fault_address(has_lane, 0)));
  const FaultSet second = eeprom_read_dword(reinterpret_cast<const uint32_t*>(fault_address(has_lane, 1)));
  stored.faults = ~(first & second);
}

void tick(Board& board) {
  const uint8_t committed = board.take_committed();
  if (committed != 0) {
    dirty |= committed;
    offset = 0;
  }
  const uint16_t run = board.take_raised_run();
  if (run != 0) {
    raised_run = run;
    raised_left = 8;
  }
  if (!eeprom_is_ready()) return;
  if (raised_left > 0) {
    write_raised_run();
    return;
  }
  // Faults are written before settings. If write_faults() has written a byte, the settings wait for a later call of tick().
  if (write_faults(compared_lane, board.lane(compared_lane).faults().kept())) return;
  compared_lane = static_cast<uint8_t>((compared_lane + 1) % kLanes);
  if (dirty == 0) return;
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
