// A minimal unit-test framework, which needs no installation: TEST registers a test, and CHECK counts failed checks.
#pragma once
#include <cstdio>

struct TestCase {
  TestCase(const char* name, void (*body)());
  const char* name;
  void (*body)();
  TestCase* next;
};

void check(bool fine, const char* what, const char* file, int line);

#define TEST(name)                                 \
  static void name();                              \
  static TestCase registered_##name(#name, &name); \
  static void name()
#define CHECK(what) check((what), #what, __FILE__, __LINE__)
