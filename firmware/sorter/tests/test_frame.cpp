#include <cstring>
#include <string>

#include "../crc16.h"
#include "../frame.h"
#include "check.h"

using namespace castline;

namespace {

const char kNames[] = "PING PONG";

std::string framed(const std::string& body) {
  uint16_t crc = kCrcFirst;
  for (char letter : body) crc = crc16(crc, static_cast<uint8_t>(letter));
  char tail[8];
  std::snprintf(tail, sizeof tail, "*%04X\n", crc);
  return body + tail;
}

// Returns the number of valid frames in `bytes`.
int frames(Deframer& deframer, const std::string& bytes) {
  int count = 0;
  for (char byte : bytes) count += deframer.feed(static_cast<uint8_t>(byte));
  return count;
}

}  // namespace

TEST(the_checksum_gives_the_check_value_of_the_page) {
  uint16_t crc = kCrcFirst;
  for (const char* digit = "123456789"; *digit != '\0'; ++digit) crc = crc16(crc, static_cast<uint8_t>(*digit));
  CHECK(crc == 0x29B1);
}

TEST(a_frame_of_the_page_is_taken_apart) {
  Deframer deframer;
  CHECK(frames(deframer, ">03 VERDICT 1 12 1 divert 1*3248\n") == 1);
  CHECK(deframer.seq() == 3);
  CHECK(std::strcmp(deframer.name(), "VERDICT") == 0);
  CHECK(deframer.fields() == 5);
  CHECK(std::strcmp(deframer.field(3), "divert") == 0);
  CHECK(deframer.good == 1 && deframer.damaged == 0);
}

TEST(a_lost_newline_costs_only_its_own_frame) {
  Deframer deframer;
  const std::string whole = framed(">7f PING 5");
  CHECK(frames(deframer, whole.substr(0, whole.size() - 1) + whole) == 1);
  CHECK(deframer.damaged == 1);
}

TEST(no_flipped_bit_gets_through) {
  const std::string whole = framed(">10 CLEAR 1 41");
  for (size_t at = 0; at + 1 < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Deframer deframer;
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << bit);
      CHECK(frames(deframer, flipped) == 0);
    }
  }
}

TEST(a_frame_of_sixty_bytes_fits_and_one_more_does_not) {
  Deframer deframer;
  const std::string body = ">00 PING ";
  CHECK(frames(deframer, framed(body + std::string(60 - 6 - body.size(), '7'))) == 1);
  CHECK(frames(deframer, framed(body + std::string(61 - 5 - body.size(), '7'))) == 0);
  CHECK(frames(deframer, framed(body + std::string(4000, '7'))) == 0);
  CHECK(frames(deframer, framed(body + "1")) == 1);
}

TEST(shapes_that_are_none_are_dropped_though_their_checksum_is_right) {
  for (const char* body : {">0G PING 1", ">00 ping 1", ">00  PING 1", ">00 PING  1", ">00 PING 1 ", ">00PING 1", ">00 ", ">AB PING 1", ">00 PING a/b"}) {
    Deframer deframer;
    CHECK(frames(deframer, framed(body)) == 0);
  }
}

TEST(further_fields_of_a_newer_host_are_ignored) {
  Deframer deframer;
  CHECK(frames(deframer, framed(">00 PING 1 2 3 4 5 6 7 8 9")) == 1);
  CHECK(deframer.fields() == kMaxFields);
}

TEST(numbers_are_written_as_they_are_read) {
  for (uint32_t value : {0u, 1u, 9u, 10u, 101u, 65535u, 99999999u, 1000000000u, 4294967295u}) {
    char buffer[kMaxFrameBytes];
    FrameWriter writer(buffer, '<', 0xa5);
    writer.word(kNames, 1).number(value);
    const std::string frame(buffer, writer.close());
    CHECK(frame == framed("<a5 PONG " + std::to_string(value)));
    uint32_t again = 0;
    CHECK(read_number(std::to_string(value).c_str(), again) && again == value);
  }
  uint32_t value;
  for (const char* text : {"", "00", "01", "+1", "-1", "1.0", "4294967296", "99999999999", "one"}) CHECK(!read_number(text, value));
}

TEST(words_are_found_whole_only) {
  CHECK(find_word(kNames, "PING") == 0);
  CHECK(find_word(kNames, "PONG") == 1);
  for (const char* text : {"", "PIN", "PINGS", "PING PONG", "ONG"}) CHECK(find_word(kNames, text) == -1);
}

TEST(what_does_not_fit_is_cut_off_and_writes_nowhere_else) {
  char buffer[kMaxFrameBytes + 1];
  buffer[kMaxFrameBytes] = '#';
  FrameWriter writer(buffer, '!', 0);
  for (int count = 0; count < 30; ++count) writer.number(4294967295u);
  CHECK(writer.close() == kMaxFrameBytes);
  CHECK(buffer[kMaxFrameBytes] == '#');
}
