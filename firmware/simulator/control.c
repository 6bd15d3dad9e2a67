/* The control channel. Each line on stdin is a command, and each line on stdout is an event as a JSON object.
 *
 * pin A0 1                sets the level of an input pin now
 * at CYCLE A0 1           sets the level of an input pin at an exact cycle
 * encoder E4 E5 CYCLES 1  turns an encoder: an edge every CYCLES cycles, forward (1) or backward (0); 0 cycles stops the encoder
 * rx HEX                  sends bytes to UART 0 at the speed of the line
 * run CYCLE               without --link only: runs up to this cycle and sends the event `paused`
 * reset power|button|brown-out|watchdog
 * dtr 0|1                 lowers or raises DTR; with --boot-loader, raising DTR resets the board
 * hang                    makes the processor execute an endless loop, until the watchdog resets it
 * watch E3                reports the changes of one more output pin
 * servo all|changes       reports all servo pulses, or only those whose width has changed
 * pace X                  runs at X times real time; 0 means as fast as possible
 * loop F                  measures how long the rounds of the firmware's main loop take, by its writes to port F
 * loop                    reports these durations
 * stat                    reports the processor time and the numbers of bytes on the serial line
 * quit                    ends the program
 */
#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t control_target;
int control_run_pending;

static char line[1 << 17];
static size_t length;

void control_start(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    fcntl(0, F_SETFL, O_NONBLOCK | fcntl(0, F_GETFL));
}

void control_send(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void control_flush(void) {
    if (fflush(stdout)) quitting = 1; /* The reader has closed the pipe. */
}

static void send_statistics(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    control_send("{\"event\": \"stat\", \"cycle\": %llu, \"cpu_s\": %.3f, \"bytes_in\": %llu, \"bytes_out\": %llu, \"overruns\": %llu, "
                 "\"untaken\": %llu}",
                 (unsigned long long)mcu_cycle(), usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
                 (unsigned long long)wire_in, (unsigned long long)wire_out, (unsigned long long)wire_overruns, (unsigned long long)wire_unread);
}

static void receive_hex(const char *hex) {
    uint8_t bytes[sizeof line / 2];
    unsigned count = 0, value;
    for (; sscanf(hex, "%2x", &value) == 1 && hex[1]; hex += 2) bytes[count++] = value;
    wire_receive(bytes, count);
    wire_poll();
}

static void command(const char *text) {
    char port, port_b, word[16];
    int bit, bit_b, level;
    unsigned cycles;
    unsigned long long cycle;
    int fine = 1;
    if (sscanf(text, "at %llu %c%d %d", &cycle, &port, &bit, &level) == 4) {
        pin_schedule(cycle, port, bit, level);
    } else if (sscanf(text, "run %llu", &cycle) == 1) {
        control_target = cycle;
        control_run_pending = 1;
    } else if (!strncmp(text, "rx ", 3)) {
        receive_hex(text + 3);
    } else if (sscanf(text, "pin %c%d %d", &port, &bit, &level) == 3) {
        fine = pin_set(port, bit, level);
    } else if (sscanf(text, "encoder %c%d %c%d %u %d", &port, &bit, &port_b, &bit_b, &cycles, &level) == 6) {
        encoder_turn(port, bit, port_b, bit_b, cycles, level);
    } else if (sscanf(text, "reset %15s", word) == 1) {
        const char *const names[] = {"power", "button", "brown-out", "watchdog"};
        fine = 0;
        for (int i = 0; i < 4; i++) {
            if (!strcmp(word, names[i])) {
                mcu_reset(i);
                fine = 1;
            }
        }
    } else if (sscanf(text, "dtr %d", &level) == 1) {
        wire_set_dtr(level);
    } else if (!strcmp(text, "hang")) {
        mcu_hang();
    } else if (sscanf(text, "watch %15s", word) == 1) {
        fine = pin_watch(word);
    } else if (sscanf(text, "servo %15s", word) == 1) {
        servo_reports_all = !strcmp(word, "all");
    } else if (sscanf(text, "pace %lf", &speed_factor) == 1) {
        restart_real_time();
    } else if (sscanf(text, "loop %c", &port) == 1) {
        fine = loop_watch(port);
    } else if (!strcmp(text, "loop")) {
        loop_report();
    } else if (!strcmp(text, "stat")) {
        send_statistics();
    } else if (!strcmp(text, "quit")) {
        quitting = 1;
    } else {
        fine = 0;
    }
    if (!fine) control_send("{\"event\": \"error\", \"text\": \"unknown command: %.60s\"}", text);
}

/* Returns false if stdin has ended. */
static int read_commands(void) {
    const ssize_t got = read(0, line + length, sizeof line - 1 - length);
    if (got == 0) return 0;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    length += got;
    line[length] = 0;
    char *start = line, *end;
    while ((end = strchr(start, '\n'))) {
        *end = 0;
        command(start);
        start = end + 1;
    }
    length -= start - line;
    memmove(line, start, length);
    if (length > sizeof line - 16) length = 0;
    return 1;
}

int control_wait(uint64_t until_ns) {
    control_flush();
    do {
        struct pollfd wait[2] = {{0, POLLIN, 0}, {wire_handle(), POLLIN, 0}};
        const uint64_t now = now_ns();
        const uint64_t left = until_ns > now ? until_ns - now : 0;
        const struct timespec time = {left / 1000000000u, left % 1000000000u};
        /* Wait for the pseudo-terminal only if a program has opened it. Otherwise ppoll() would return at once. */
        ppoll(wait, wire_is_open() ? 2 : 1, &time, NULL);
        if ((wait[0].revents & (POLLIN | POLLHUP)) && !read_commands()) return 0;
        if (wire_is_open() && wait[1].revents) wire_poll();
    } while (!quitting && now_ns() < until_ns && !control_run_pending);
    return 1;
}
