/* The microcontroller: start, resets, and repairs of what simavr 1.6 does not do as the hardware does. */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/avr_extint.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_io.h>
#include <simavr/sim_regbit.h>

avr_t *avr;
avr_ioport_t *ports[PORTS];
avr_uart_t *uart0;
int quitting;

static uint64_t cycle_offset, last_cycle; /* newer libraries set the cycle counter to zero at a reset */
static int after_reset = 1;
static enum reset_cause cause;
static int cause_known;
static void (*core_reset)(avr_t *);
static int stop;

uint64_t mcu_cycle(void) { return cycle_offset + avr->cycle; }
double mcu_us(uint64_t cycles) { return cycles * 1e6 / avr->frequency; }

/* ---- repair: compare registers in fast PWM ----
 * simavr takes a new value over at once (a pulse in progress can stay high for a whole period) and ignores a write whose low byte equals
 * the old one. The hardware keeps the value aside until the counter passes its bottom; so does this. */
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

static void take_over(struct avr_irq_t *irq, uint32_t value, void *param) {
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
        if (any) avr_irq_register_notify(timer->overflow.irq + AVR_INT_IRQ_PENDING, take_over, timer);
    }
}

/* ---- resets ---- */

static const char *const cause_names[] = {"power", "button", "brown-out", "watchdog"};

static void set_reset_flag(void) {
    avr_regbit_t *const flags[] = {&avr->reset_flags.porf, &avr->reset_flags.extrf, &avr->reset_flags.borf, &avr->reset_flags.wdrf};
    for (int i = 0; i < 4; i++) avr_regbit_setto(avr, *flags[i], i == (int)cause);
}

/* Called inside avr_reset(), which has dropped all cycle timers and pin levels. */
static void on_reset(avr_t *mcu) {
    if (core_reset) core_reset(mcu);
    if (mcu->cycle < last_cycle) cycle_offset += last_cycle - mcu->cycle;
    for (int i = 0; i < compare_count; i++) compares[i].pending = 0;
    after_reset = 1;
    if (!cause_known) cause = RESET_WATCHDOG; /* nobody here asked for it */
    mcu->run_cycle_limit = 1000;
    pins_after_reset();
    servo_after_reset();
    control_tell("{\"event\": \"reset\", \"cycle\": %llu, \"cause\": \"%s\"}", (unsigned long long)mcu_cycle(), cause_names[cause]);
    stop = 1; /* mcu_run_until registers its timer again */
}

void mcu_reset(enum reset_cause why) {
    cause = why;
    cause_known = 1;
    avr_reset(avr);
    set_reset_flag();
    cause_known = 0;
}

/* An endless jump to itself is put at the end of the flash, where no program is. */
void mcu_hang(void) {
    const uint32_t address = avr->flashend - 1;
    avr->flash[address] = 0xFF;
    avr->flash[address + 1] = 0xCF;
    avr->pc = address;
    if (avr->state == cpu_Sleeping) avr->state = cpu_Running;
}

static void never_sleep(avr_t *mcu, avr_cycle_count_t cycles) {
    (void)mcu;
    (void)cycles; /* the runner paces at the ends of slices */
}

static void log_warning(avr_t *mcu, const int level, const char *format, va_list arguments) {
    (void)mcu;
    if (level > LOG_ERROR) return;
    char text[300];
    vsnprintf(text, sizeof text, format, arguments);
    for (char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\' || *c < 32) *c = ' ';
    }
    control_tell("{\"event\": \"log\", \"text\": \"%s\"}", text);
}

void mcu_start(const char *path) {
    elf_firmware_t firmware;
    memset(&firmware, 0, sizeof firmware);
    avr_global_logger_set(log_warning);
    if (elf_read_firmware(path, &firmware)) {
        fprintf(stderr, "expected a firmware in ELF format at %s\n", path);
        exit(2);
    }
    strcpy(firmware.mmcu, "atmega2560");
    firmware.frequency = 16000000;
    avr = avr_make_mcu_by_name(firmware.mmcu);
    if (!avr) {
        fprintf(stderr, "this libsimavr does not know the ATmega2560\n");
        exit(2);
    }
    avr_init(avr);
    avr_load_firmware(avr, &firmware);
    avr->log = LOG_ERROR;
    avr->gdb_port = 0;
    avr->sleep = never_sleep;
    for (avr_io_t *io = avr->io_port; io; io = io->next) {
        if (!strcmp(io->kind, "uart") && ((avr_uart_t *)io)->name == '0') uart0 = (avr_uart_t *)io;
        if (!strcmp(io->kind, "port")) ports[((avr_ioport_t *)io)->name - 'A'] = (avr_ioport_t *)io;
    }
    uint32_t flags = 0; /* no echo to the console, no naps while the program polls */
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
                control_tell("{\"event\": \"crash\", \"cycle\": %llu, \"pc\": %u}", (unsigned long long)mcu_cycle(), avr->pc);
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
    /* Otherwise an external interrupt whose pin is held low polls at every cycle. */
    for (int i = 0; i < 8; i++) avr_extint_set_strict_lvl_trig(avr, i, 0);
}
