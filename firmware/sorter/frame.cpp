#include "frame.h"

#include "crc16.h"

namespace castline {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_field(char c) { return is_digit(c) || is_upper(c) || is_lower(c) || c == '-' || c == '_' || c == '.'; }

// Returns the value of a hexadecimal digit, or -1 for another character. `first` is 'a' if the letters a to f are allowed, and 'A' if A to
// F are allowed.
int8_t hex_digit(char c, char first) {
  if (is_digit(c)) return static_cast<int8_t>(c - '0');
  if (c >= first && c <= first + 5) return static_cast<int8_t>(c - first + 10);
  return -1;
}

// number() computes digits by subtracting powers of ten, because a division takes ten times as long on this processor.
const uint32_t kPowersOfTen[9] PROGMEM = {1000000000UL, 100000000UL, 10000000UL, 1000000UL, 100000UL, 10000UL, 1000UL, 100UL, 10UL};

char hex_letter(uint8_t value, char first) { return static_cast<char>(value < 10 ? '0' + value : first + value - 10); }

}  // namespace

bool Deframer::feed(uint8_t byte) {
  if (byte == '>') {
    drop();
    open_ = true;
    line_[length_++] = static_cast<char>(byte);
    return false;
  }
  if (!open_) return false;
  if (byte == '\n') {
    if (parse()) {
      ++good;
      open_ = false;
      length_ = 0;
      return true;
    }
    drop();
    return false;
  }
  const bool printable = (byte >= 0x20 && byte < 0x7F) || byte == '\r';
  if (!printable || length_ >= kMaxCommandBytes) {
    drop();
    return false;
  }
  line_[length_++] = static_cast<char>(byte);
  return false;
}

void Deframer::drop() {
  if (open_) ++damaged;
  open_ = false;
  length_ = 0;
}

// Checks the text in line_, and splits it into strings by replacing each space by a zero byte. Returns false if the text is not a valid
// frame.
bool Deframer::parse() {
  if (length_ > 0 && line_[length_ - 1] == '\r') --length_;
  // The shortest valid frames have 10 bytes, for example ">00 A*FFFF".
  if (length_ < 10 || line_[length_ - 5] != '*') return false;
  const uint8_t star = static_cast<uint8_t>(length_ - 5);
  uint16_t sent_crc = 0, crc = kCrcFirst;
  for (uint8_t i = 0; i < 4; ++i) {
    const int8_t digit = hex_digit(line_[star + 1 + i], 'A');
    if (digit < 0) return false;
    sent_crc = static_cast<uint16_t>((sent_crc << 4) | static_cast<uint8_t>(digit));
  }
  for (uint8_t i = 0; i < star; ++i) crc = crc16(crc, static_cast<uint8_t>(line_[i]));
  if (crc != sent_crc) return false;

  const int8_t high = hex_digit(line_[1], 'a'), low = hex_digit(line_[2], 'a');
  if (high < 0 || low < 0 || line_[3] != ' ') return false;
  seq_ = static_cast<uint8_t>(high * 16 + low);
  line_[star] = '\0';
  fields_ = 0;
  char* at = line_ + kNameAt;
  while (is_upper(*at)) ++at;
  if (at == name()) return false;
  while (*at == ' ') {
    *at++ = '\0';
    if (!is_field(*at)) return false;
    if (fields_ < kMaxFields) field_[fields_++] = static_cast<uint8_t>(at - line_);
    while (is_field(*at)) ++at;
  }
  return *at == '\0' && at == line_ + star;
}

FrameWriter::FrameWriter(char* buffer, char start, uint8_t seq) : buffer_(buffer) {
  put(start);
  put(hex_letter(seq >> 4, 'a'));
  put(hex_letter(seq & 15, 'a'));
}

FrameWriter& FrameWriter::word(WordList list, uint8_t index) {
  put(' ');
  char letter = static_cast<char>(pgm_read_byte(list));
  while (index > 0 && letter != '\0') {
    if (letter == ' ') --index;
    letter = static_cast<char>(pgm_read_byte(++list));
  }
  while (letter != ' ' && letter != '\0') {
    put(letter);
    letter = static_cast<char>(pgm_read_byte(++list));
  }
  return *this;
}

FrameWriter& FrameWriter::text(const char* letters) {
  put(' ');
  while (*letters != '\0') put(*letters++);
  return *this;
}

FrameWriter& FrameWriter::number(uint32_t value) {
  put(' ');
  bool begun = false;
  for (uint8_t index = 0; index < 9; ++index) {
    const uint32_t power = pgm_read_dword(&kPowersOfTen[index]);
    char digit = '0';
    for (; value >= power; value -= power) ++digit;
    begun = begun || digit != '0';
    if (begun) put(digit);
  }
  put(static_cast<char>('0' + value));
  return *this;
}

FrameWriter& FrameWriter::digest(uint16_t crc) {
  put(' ');
  hex4(crc);
  return *this;
}

uint8_t FrameWriter::close() {
  uint16_t crc = kCrcFirst;
  for (uint8_t i = 0; i < length_; ++i) crc = crc16(crc, static_cast<uint8_t>(buffer_[i]));
  put('*');
  hex4(crc);
  put('\n');
  return length_;
}

void FrameWriter::put(char letter) {
  if (length_ < kMaxFrameBytes) buffer_[length_++] = letter;
}

void FrameWriter::hex4(uint16_t value) {
  for (int8_t shift = 12; shift >= 0; shift = static_cast<int8_t>(shift - 4)) put(hex_letter((value >> shift) & 15, 'A'));
}

}  // namespace castline
