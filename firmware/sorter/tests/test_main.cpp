// Runs all unit tests. The exit status is the number of failed checks, at most 100.
#include "check.h"

namespace {
TestCase* first = nullptr;
int failed = 0, checked = 0;
}  // namespace

TestCase::TestCase(const char* its_name, void (*its_body)()) : name(its_name), body(its_body), next(first) { first = this; }

void check(bool fine, const char* what, const char* file, int line) {
  ++checked;
  if (fine) return;
  ++failed;
  std::printf("%s:%d: expected %s\n", file, line, what);
}

int main() {
  int tests = 0;
  for (TestCase* test = first; test != nullptr; test = test->next, ++tests) test->body();
  std::printf("%d tests, %d checks, %d failed\n", tests, checked, failed);
  return failed < 100 ? failed : 100;
}
