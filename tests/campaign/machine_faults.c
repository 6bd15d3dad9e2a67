// Preloaded into all processes of a simulated machine. Steps its clock and slows its disk as the file named by CAMPAIGN_FAULTS says.
//
// The file holds two 64-bit numbers: the nanoseconds that the clock is fast, and the microseconds that each flush to the disk takes longer.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *faults;
static int (*true_clock_gettime)(clockid_t, struct timespec *);
static int (*true_fsync)(int);
static int (*true_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
  true_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  true_fsync = dlsym(RTLD_NEXT, "fsync");
  true_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  const char *path = getenv("CAMPAIGN_FAULTS");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) faults = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (!true_clock_gettime) true_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int result = true_clock_gettime(clock, at);
  if (faults && result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + faults[0];
    at->tv_sec = ns / 1000000000;
    at->tv_nsec = ns % 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval *at, void *zone) {
  (void)zone;
  struct timespec now;
  int result = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return result;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

static void wait_for_disk(void) {
  if (faults && faults[1] > 0) usleep((useconds_t)faults[1]);
}

int fsync(int file) {
  wait_for_disk();
  return true_fsync(file);
}

int fdatasync(int file) {
  wait_for_disk();
  return true_fdatasync(file);
}
