/* The microcontroller: its start, its resets, and corrections where simavr 1.6 differs from the hardware. */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/avr_extint.h>
#include <simavr/sim_core.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_io.h>
#include <simavr/sim_regbit.h>

avr_t *avr;
avr_ioport_t *ports[PORTS];
avr_uart_t *uart0;
int quitting;

/* Cycles before the last reset, because newer versions of simavr set the cycle counter to zero at a reset. */
static uint64_t cycle_offset, last_cycle;
static int after_reset = 1;
static enum reset_cause cause;
static int cause_known;
static void (*core_reset)(avr_t *);
static int stop, has_boot_loader;

uint64_t mcu_cycle(void) { return cycle_offset + avr->cycle; }
int mcu_has_boot_loader(void) { return has_boot_loader; }
double mcu_us(uint64_t cycles) { return cycles * 1e6 / avr->frequency; }

/* ---- correction: compare registers in fast PWM ----
 * With this correction, a new compare value is used when the counter starts again from 0, as in the hardware. simavr uses it at once, so a
 * pulse in progress can stay high for a whole period. simavr also ignores a write whose low byte is unchanged. */
static struct compare {
    avr_timer_t *timer;
    avr_timer_comp_t *channel;
    avr_io_write_t write;
    void *param;
    int pending;
} compares[24];
static int compare_count;

static void compare_write(avr_t *mcu, avr_io_addr_t address, uint8_t value, void *param) {
    struct compare *compare = param;
    const avr_timer_t *timer = compare->timer;
    if (timer->wgm_op_mode_kind == avr_timer_wgm_fast_pwm && timer->cs_div_value && timer->tov_cycles) {
        mcu->data[address] = value;
        compare->pending = 1;
    } else {
        compare->write(mcu, address, value, compare->param);
    }
}

static void apply_compares(struct avr_irq_t *irq, uint32_t value, void *param) {
    (void)irq;
    if (!value) return;
    for (int i = 0; i < compare_count; i++) {
        struct compare *compare = &compares[i];
        if (compare->timer != param || !compare->pending) continue;
        avr_timer_comp_t *channel = compare->channel;
        const uint16_t counts = avr->data[channel->r_ocr] | avr->data[channel->r_ocrh] << 8;
        channel->comp_cycles = counts <= compare->timer->tov_top ? (uint64_t)compare->timer->cs_div_value * (counts + 1) : 0;
        compare->pending = 0;
    }
}

static void repair_compares(void) {
    for (avr_io_t *io = avr->io_port; io; io = io->next) {
        if (strcmp(io->kind, "timer")) continue;
        avr_timer_t *timer = (avr_timer_t *)io;
        int any = 0;
        for (int c = 0; c < AVR_TIMER_COMP_COUNT; c++) {
            if (!timer->comp[c].r_ocr || !timer->comp[c].r_ocrh) continue; /* only the 16-bit timers */
            const avr_io_addr_t address = AVR_DATA_TO_IO(timer->comp[c].r_ocr);
            struct compare *compare = &compares[compare_count++];
            *compare = (struct compare){timer, &timer->comp[c], avr->io[address].w.c, avr->io[address].w.param, 0};
            avr->io[address].w.c = compare_write;
            avr->io[address].w.param = compare;
            any = 1;
        }
        if (any) avr_irq_register_notify(timer->overflow.irq + AVR_INT_IRQ_PENDING, apply_compares, timer);
    }
}

/* ---- resets ---- */

static const char *const cause_names[] = {"power", "button", "brown-out", "watchdog"};

/* After a power cut, the RAM of a real microcontroller holds bytes that nobody can predict. */
static void scramble_ram(void) {
    static uint32_t random = 2463534242u;
    for (uint32_t address = avr->ioend + 1; address <= avr->ramend; address++) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        avr->data[address] = random;
    }
}

static void set_reset_flag(void) {
    avr_regbit_t *const flags[] = {&avr->reset_flags.porf, &avr->reset_flags.extrf, &avr->reset_flags.borf, &avr->reset_flags.wdrf};
    for (int i = 0; i < 4; i++) avr_regbit_setto(avr, *flags[i], i == (int)cause);
}

/* Called by avr_reset(), which has removed all cycle timers and pin levels. */
static void on_reset(avr_t *mcu) {
    if (core_reset) core_reset(mcu);
    if (mcu->cycle < last_cycle) cycle_offset += last_cycle - mcu->cycle;
    for (int i = 0; i < compare_count; i++) compares[i].pending = 0;
    after_reset = 1;
    if (!cause_known) cause = RESET_WATCHDOG; /* No command has caused this reset, so it was the watchdog. */
    mcu->run_cycle_limit = 1000;
    pins_after_reset();
    servo_after_reset();
    control_send("{\"event\": \"reset\", \"cycle\": %llu, \"cause\": \"%s\"}", (unsigned long long)mcu_cycle(), cause_names[cause]);
    stop = 1; /* mcu_run_until() must register its timer again, because the reset has removed it. */
}

void mcu_reset(enum reset_cause new_cause) {
    cause = new_cause;
    cause_known = 1;
    if (cause == RESET_POWER) scramble_ram();
    avr_reset(avr);
    set_reset_flag();
    cause_known = 0;
}

/* Makes the processor execute an endless loop. The loop is a jump to itself at the end of the flash, which the firmware does not use.
 * Interrupts are on, as in a main loop that stands still, also if an interrupt routine is at work just now. */
void mcu_hang(void) {
    const uint32_t address = avr->flashend - 1;
    avr->flash[address] = 0xFF;
    avr->flash[address + 1] = 0xCF;
    avr->pc = address;
    avr_sreg_set(avr, S_I, 1);
    if (avr->state == cpu_Sleeping) avr->state = cpu_Running;
}

static void never_sleep(avr_t *mcu, avr_cycle_count_t cycles) {
    (void)mcu;
    (void)cycles; /* Does nothing, because the runner itself waits after each piece of simulated time. */
}

static void log_warning(avr_t *mcu, const int level, const char *format, va_list arguments) {
    (void)mcu;
    if (level > LOG_ERROR) return;
    char text[300];
    vsnprintf(text, sizeof text, format, arguments);
    for (char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\' || *c < 32) *c = ' ';
    }
    control_send("{\"event\": \"log\", \"text\": \"%s\"}", text);
}

/* Puts the boot loader into the flash. Each reset then starts the boot loader, as the fuse BOOTRST of a Mega says. simavr's own reader of
 * Intel HEX files is not used, because it complains about the record with the start address. */
static void load_boot_loader(const char *path) {
    FILE *file = fopen(path, "r");
    char line[600];
    unsigned size, offset, type, value;
    uint32_t segment = 0;
    avr->reset_pc = avr->flashend;
    while (file && fgets(line, sizeof line, file) && sscanf(line, ":%2x%4x%2x", &size, &offset, &type) == 3) {
        if (type == 2 && sscanf(line + 9, "%4x", &value) == 1) segment = value << 4;
        if (type == 4 && sscanf(line + 9, "%4x", &value) == 1) segment = value << 16;
        for (unsigned i = 0; type == 0 && i < size; i++) {
            const uint32_t address = segment + offset + i;
            if (address > avr->flashend || sscanf(line + 9 + 2 * i, "%2x", &value) != 1) break;
            avr->flash[address] = value;
            if (address < avr->reset_pc) avr->reset_pc = address;
        }
    }
    if (file) fclose(file);
    if (avr->reset_pc == avr->flashend) {
        fprintf(stderr, "%s is not a boot loader in Intel HEX format\n", path);
        exit(2);
    }
    avr->pc = avr->reset_pc;
    has_boot_loader = 1;
}

void mcu_start(const char *path, const char *boot_loader) {
    elf_firmware_t firmware;
    memset(&firmware, 0, sizeof firmware);
    avr_global_logger_set(log_warning);
    if (elf_read_firmware(path, &firmware)) {
        fprintf(stderr, "%s is not a firmware in ELF format\n", path);
        exit(2);
    }
    strcpy(firmware.mmcu, "atmega2560");
    firmware.frequency = 16000000;
    avr = avr_make_mcu_by_name(firmware.mmcu);
    if (!avr) {
        fprintf(stderr, "this version of libsimavr does not support the ATmega2560; install libsimavr 1.6 or newer\n");
        exit(2);
    }
    avr_init(avr);
    avr_load_firmware(avr, &firmware);
    if (boot_loader) load_boot_loader(boot_loader);
    scramble_ram();
    avr->log = LOG_ERROR;
    avr->gdb_port = 0;
    avr->sleep = never_sleep;
    for (avr_io_t *io = avr->io_port; io; io = io->next) {
        if (!strcmp(io->kind, "uart") && ((avr_uart_t *)io)->name == '0') uart0 = (avr_uart_t *)io;
        if (!strcmp(io->kind, "port")) ports[((avr_ioport_t *)io)->name - 'A'] = (avr_ioport_t *)io;
    }
    /* Without flags, simavr does not write the bytes to the console, and does not sleep while the firmware polls the UART. */
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    repair_compares();
    core_reset = avr->reset;
    avr->reset = on_reset;
    avr->run_cycle_limit = 1000;
    cause = RESET_POWER;
    set_reset_flag();
}

/* ---- running ---- */

static avr_cycle_count_t stop_now(avr_t *mcu, avr_cycle_count_t when, void *param) {
    (void)mcu;
    (void)when;
    (void)param;
    stop = 1;
    return 0;
}

void mcu_run_until(uint64_t cycle) {
    while (mcu_cycle() < cycle && !quitting) {
        stop = 0;
        avr_cycle_timer_register(avr, cycle - mcu_cycle(), stop_now, NULL);
        while (!stop && !quitting) {
            const int state = avr_run(avr);
            if (state == cpu_Done || state == cpu_Crashed) {
                control_send("{\"event\": \"crash\", \"cycle\": %llu, \"pc\": %u}", (unsigned long long)mcu_cycle(), avr->pc);
                quitting = 3;
            }
        }
        avr_cycle_timer_cancel(avr, stop_now, NULL);
        last_cycle = avr->cycle;
        mcu_check();
    }
}

void mcu_check(void) {
    last_cycle = avr->cycle;
    if (!after_reset) return;
    after_reset = 0;
    /* Without this call, simavr would check an external interrupt in every cycle while its pin is low, which is slow. */
    for (int i = 0; i < 8; i++) avr_extint_set_strict_lvl_trig(avr, i, 0);
}
