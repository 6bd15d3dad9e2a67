/* Runs the board's firmware in libsimavr. UART 0 is connected to a pseudo-terminal, or its bytes are sent as hexadecimal text. Servo pulses
 * and pin changes are reported as JSON lines with their cycles, and commands set pins at exact cycles (control.c).
 *
 * Time passes in one of two ways:
 *   --link PATH      in real time, for the demo and host programs; the command `pace` changes the speed; PATH is the pseudo-terminal
 *   without --link   only in the command `run`, as fast as possible, for tests; every run gives the same result
 *
 * With --boot-loader, the board behaves like a Mega as it is sold. The boot loader runs after each reset, and DTR resets the board. The
 * first opening of the terminal raises DTR. When the host closes the terminal, DTR falls, unless the host has switched HUPCL off.
 *
 * Build: gcc -O2 -o runner runner.c mcu.c pins.c servo.c wire.c eeprom.c control.c -lsimavr -lutil
 */
#define _GNU_SOURCE
#include "runner.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SLICE_US 500             /* With --link, the firmware runs for this time between two checks of the inputs. */
#define LAG_NS 250000000ull      /* If the simulation is later than this, it does not catch up, and real time starts anew. */
#define STEPPED_SLICE 16000u     /* Without --link, cycles between two checks of the inputs: 1 ms. */
#define EEPROM_EVERY 1024        /* With --link, the EEPROM is saved once in this many checks. */

double speed_factor = 1;
static uint64_t start_ns, start_cycle;

uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

void restart_real_time(void) {
    start_ns = now_ns();
    start_cycle = mcu_cycle();
}

static void on_signal(int signal) {
    (void)signal;
    quitting = 1;
}

static void run_in_real_time(void) {
    const uint64_t slice = (uint64_t)avr->frequency * SLICE_US / 1000000;
    restart_real_time();
    for (unsigned count = 1; !quitting; count++) {
        mcu_run_until(mcu_cycle() + slice);
        wire_poll();
        uint64_t due = 0;
        if (speed_factor > 0) {
            due = start_ns + (uint64_t)((mcu_cycle() - start_cycle) * (1e9 / avr->frequency) / speed_factor);
            const uint64_t now = now_ns();
            if (now > due && now - due > LAG_NS) restart_real_time();
        }
        if (!control_wait(due)) return;
        if (count % EEPROM_EVERY == 0) eeprom_save();
    }
}

static void run_stepped(void) {
    while (!quitting) {
        if (!control_wait(control_run_pending ? 0 : now_ns() + 1000000000ull)) return;
        if (!control_run_pending) continue;
        /* `paused` is sent even if the target cycle has passed already, because an instruction or a sleep can end after its target. */
        control_run_pending = 0;
        while (mcu_cycle() < control_target && !quitting) {
            wire_poll();
            const uint64_t left = control_target - mcu_cycle();
            mcu_run_until(mcu_cycle() + (left < STEPPED_SLICE ? left : STEPPED_SLICE));
        }
        eeprom_save();
        control_send("{\"event\": \"paused\", \"cycle\": %llu}", (unsigned long long)mcu_cycle());
    }
}

static void watch_all(char *names, int (*watch)(const char *)) {
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        if (watch(name)) continue;
        fprintf(stderr, "unknown pin or output %s; a pin looks like F4, a timer output like 4A\n", name);
        exit(2);
    }
}

int main(int count, char **words) {
    const char *firmware = NULL, *boot_loader = NULL, *link = NULL, *eeprom = NULL;
    char *servos = NULL, *pins = NULL;
    for (int i = 1; i < count; i++) {
        const int more = i + 1 < count;
        if (!strcmp(words[i], "--link") && more) {
            link = words[++i];
        } else if (!strcmp(words[i], "--eeprom") && more) {
            eeprom = words[++i];
        } else if (!strcmp(words[i], "--boot-loader") && more) {
            boot_loader = words[++i];
        } else if (!strcmp(words[i], "--servos") && more) {
            servos = words[++i];
        } else if (!strcmp(words[i], "--pins") && more) {
            pins = words[++i];
        } else if (*words[i] != '-') {
            firmware = words[i];
        } else {
            firmware = NULL;
            break;
        }
    }
    if (!firmware) {
        fprintf(stderr, "usage: runner [--link PATH] [--eeprom FILE] [--boot-loader HEX] [--servos 4A,1A] [--pins F0,F4] firmware.elf\n");
        return 2;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000); /* The operating system ends each sleep within 1 us of its time instead of 50 us. */
    control_start();
    mcu_start(firmware, boot_loader);
    eeprom_start();
    if (servos) watch_all(servos, servo_watch);
    if (pins) watch_all(pins, pin_watch);
    if (eeprom) eeprom_load(eeprom);
    wire_start(link);
    mcu_check();
    control_send("{\"event\": \"ready\", \"cycle\": 0, \"hz\": %u}", avr->frequency);
    control_flush();
    if (link) {
        run_in_real_time();
    } else {
        run_stepped();
    }
    eeprom_save();
    wire_stop();
    control_flush();
    return quitting > 1 ? quitting : 0;
}
