// Frames of the gate protocol, byte by byte in, byte by byte out: firmware/PROTOCOL.md, "Frames".
#pragma once
#include "text.h"

namespace castline {

const uint8_t kMaxFrameBytes = 80;    // newline included; PROTOCOL.md, "Frames"
const uint8_t kMaxCommandBytes = 60;  // the same
const uint8_t kMaxFields = 6;     // of any command, with one to spare; further ones are a newer host's and are ignored

//   dropped --'>'--> collecting --newline, whole--> frame
//   collecting --'>'--> collecting anew: a damaged newline costs no second frame
//   collecting --newline, damaged | unprintable | too long--> dropped
class Deframer {
 public:
  // True when `byte` completed a whole frame; seq(), name() and field() then hold until the next byte.
  bool feed(uint8_t byte);

  uint8_t seq() const { return seq_; }
  const char* name() const { return line_ + kNameAt; }
  uint8_t fields() const { return fields_; }
  const char* field(uint8_t index) const { return line_ + field_[index]; }

  uint32_t good = 0;
  uint32_t damaged = 0;

 private:
  static const uint8_t kNameAt = 4;

  bool parse();
  void drop();

  char line_[kMaxCommandBytes + 1];
  uint8_t length_ = 0;
  bool open_ = false;
  uint8_t seq_ = 0;
  uint8_t fields_ = 0;
  uint8_t field_[kMaxFields];  // where in the line
};

// Writes one frame into a buffer of kLongestFrame bytes. What would not fit is a fault of the program: it is cut off and fails the tests.
class FrameWriter {
 public:
  FrameWriter(char* buffer, char start, uint8_t seq);
  FrameWriter& word(WordList list, uint8_t index = 0);  // " " and the word
  FrameWriter& text(const char* letters);               // " " and letters from RAM
  FrameWriter& number(uint32_t value);                  // " " and the number
  FrameWriter& digest(uint16_t crc);                    // " " and four hexadecimal digits
  uint8_t close();                                      // adds checksum and newline; the frame's length

 private:
  void put(char letter);
  void hex4(uint16_t value);

  char* buffer_;
  uint8_t length_ = 0;
};

}  // namespace castline
