/* Connects UART 0 to a pseudo-terminal, which pyserial can open, or to the control channel. */
#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <simavr/sim_io.h>
#include <simavr/sim_regbit.h>

DEFINE_FIFO(uint16_t, uart_fifo);

#define QUEUE 65536u
#define HARDWARE_BYTES 3u /* Bytes that a real UART can hold: two in its buffer and one in the shift register. simavr has room for 64. */

uint64_t wire_in, wire_out, wire_overruns, wire_unread;

static uint8_t to_board[QUEUE], to_host[QUEUE];
static unsigned in_read, in_written, out_read, out_written;
static int master = -1, opened, dtr;
static const char *link_path;

/* Returns how many cycles a byte of 10 bits (8N1) takes. simavr 1.6 computes a longer time, because it always adds a parity bit. */
static uint32_t byte_cycles(void) {
    const uint32_t divisor = avr_regbit_get(avr, uart0->ubrrl) | avr_regbit_get(avr, uart0->ubrrh) << 8;
    return (divisor + 1) * (avr_regbit_get(avr, uart0->u2x) ? 8 : 16) * 10;
}

static avr_cycle_count_t feed(avr_t *mcu, avr_cycle_count_t when, void *param) {
    (void)mcu;
    (void)param;
    if (in_read == in_written) return 0;
    const uint8_t byte = to_board[in_read++ % QUEUE];
    wire_in++;
    if (uart_fifo_get_read_size(&uart0->input) >= HARDWARE_BYTES) {
        wire_overruns++;
        avr_regbit_setto(avr, uart0->dor, 1);
    } else {
        avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT), byte);
    }
    return when + byte_cycles();
}

static void send_line(void) {
    char text[2 * 256 + 1];
    unsigned length = 0;
    while (out_read != out_written && length < 256) {
        snprintf(text + 2 * length++, 3, "%02x", to_host[out_read++ % QUEUE]);
    }
    control_send("{\"event\": \"tx\", \"cycle\": %llu, \"hex\": \"%s\"}", (unsigned long long)mcu_cycle(), text);
}

static void sent(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    (void)param;
    to_host[out_written++ % QUEUE] = value;
    wire_out++;
    if (master < 0 && (value == '\n' || out_written - out_read == 200)) send_line();
}

void wire_start(const char *link) {
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), sent, NULL);
    if (!link) return;
    int slave;
    char name[128], staged[4096];
    if (openpty(&master, &slave, name, NULL, NULL)) {
        perror("openpty");
        exit(2);
    }
    struct termios raw;
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    raw.c_cflag |= HUPCL; /* A serial port of Linux has this flag from the beginning. A pseudo-terminal lacks it. */
    tcsetattr(slave, TCSANOW, &raw);
    close(slave); /* The slave must be closed here. Otherwise the master would not notice when the host closes the port. */
    fcntl(master, F_SETFL, O_NONBLOCK | fcntl(master, F_GETFL));
    link_path = link;
    snprintf(staged, sizeof staged, "%s.%d", link, getpid());
    if (symlink(name, staged) || rename(staged, link)) {
        perror(link);
        exit(2);
    }
}

void wire_receive(const uint8_t *bytes, unsigned count) {
    while (count-- && in_written - in_read < QUEUE) to_board[in_written++ % QUEUE] = *bytes++;
}

void wire_set_dtr(int level) {
    const int rises = level && !dtr;
    dtr = level;
    if (rises && mcu_has_boot_loader()) mcu_reset(RESET_BUTTON);
}

/* Returns whether DTR falls when the host closes the terminal. */
static int hangs_up(void) {
    struct termios settings;
    return tcgetattr(master, &settings) || (settings.c_cflag & HUPCL);
}

static void poll_terminal(void) {
    struct pollfd state = {master, POLLIN, 0};
    poll(&state, 1, 0);
    const int now_open = !(state.revents & POLLHUP);
    if (now_open != opened) {
        opened = now_open;
        if (!opened) in_read = in_written; /* Bytes that have not reached the board are lost when the host closes the port. */
        control_send("{\"event\": \"%s\", \"cycle\": %llu}", opened ? "opened" : "closed", (unsigned long long)mcu_cycle());
        if (opened || hangs_up()) wire_set_dtr(opened);
    }
    if (state.revents & POLLIN) {
        uint8_t bytes[4096];
        const unsigned room = QUEUE - (in_written - in_read);
        const ssize_t got = read(master, bytes, room < sizeof bytes ? room : sizeof bytes);
        if (got > 0) wire_receive(bytes, got);
    }
    while (out_read != out_written) {
        const unsigned at = out_read % QUEUE, whole = out_written - out_read;
        const unsigned count = at + whole > QUEUE ? QUEUE - at : whole;
        const ssize_t written = opened ? write(master, to_host + at, count) : -1;
        if (written <= 0) { /* Bytes that the host does not read are lost, as at a real USB bridge. */
            wire_unread += whole;
            out_read = out_written;
        } else {
            out_read += written;
        }
    }
}

void wire_poll(void) {
    const uint32_t cycles = byte_cycles();
    if (uart0->cycles_per_byte != cycles) uart0->cycles_per_byte = cycles;
    if (master >= 0) poll_terminal();
    if (in_read != in_written && avr_cycle_timer_status(avr, feed, NULL) == 0) avr_cycle_timer_register(avr, 1, feed, NULL);
}

int wire_handle(void) { return master; }

int wire_is_open(void) { return opened; }

void wire_stop(void) {
    if (link_path) unlink(link_path);
}
