"""Variables that an interrupt changes are read and written with interrupts off, wherever they have more than one byte."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from firmware import toolchain

# An interrupt may come between the two bytes of such a register.
WIDE_REGISTERS = re.compile(r"\b(?:TCNT|ICR)[1345]\b|\bOCR[1345][ABC]\b")
WIDE_VARIABLE = re.compile(r"volatile\s+(?:u?int(?:16|32)_t|Stamp5)\s+(\w+)")
NARROW_VARIABLE = re.compile(r"volatile\s+(?:bool|u?int8_t)\s+([^;]+);")
ATOMIC = "ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {"
# `count_sample` is called by an interrupt of another file.
INTERRUPTS = {"ISR", "count_sample"}
# These functions run before the interrupts are on.
BEFORE_INTERRUPTS = {"begin", "start_timer", "cause", "channel"}


def body_at(text: str, opening: int) -> str:
    """Returns the text between the brace at `opening` and its closing brace."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[opening + 1 : index]
    raise AssertionError("a brace is not closed")


def functions(text: str) -> Iterator[tuple[str, str]]:
    """Yields name and body of each function. The name of an interrupt is ISR."""
    for found in re.finditer(r"^(?=\S)(?:[\w&*<> ]+?[ *&])?(\w+)\(([^;{}]*)\)(?: const)? \{", text, re.MULTILINE):
        yield found.group(1), found.group(2) + ";" + body_at(text, found.end() - 1)


def without_atomic_blocks(body: str) -> str:
    while (start := body.find(ATOMIC)) >= 0:
        inner = body_at(body, start + len(ATOMIC) - 1)
        body = body[:start] + body[start + len(ATOMIC) + len(inner) + 1 :]
    return body


def unguarded(text: str) -> list[str]:
    """Returns the statements of a source file that access something wide, or change something of an interrupt, with interrupts on."""
    text = re.sub(r"//.*", "", text)
    bodies = list(functions(text))
    used = {word for name, body in bodies if name in INTERRUPTS for word in re.findall(r"\w+", body)}
    interrupts = INTERRUPTS | (used & {name for name, _ in bodies})
    shared = {word for name, body in bodies if name in interrupts for word in re.findall(r"\w+", body)}
    declared = {name.split("=")[0].strip() for group in NARROW_VARIABLE.findall(text) for name in group.split(",")}
    wide = set(WIDE_VARIABLE.findall(text)) & shared
    narrow = declared & shared
    patterns = [WIDE_REGISTERS, *(re.compile(rf"\b{name}\b") for name in wide), re.compile(r"\*(?:from|to)\b(?! ?,)")]
    patterns += [re.compile(rf"(?:\+\+|--){name}\b|\b{name}(?:\+\+|--| [-+|&^]=)|\b{name} = [^;]*\b{name}\b") for name in narrow]
    found = []
    for name, body in bodies:
        if name not in interrupts | BEFORE_INTERRUPTS:
            statements = re.split(r"[;{}]", without_atomic_blocks(body))
            found += [f"{name}: {statement.strip()}" for statement in statements if any(pattern.search(statement) for pattern in patterns)]
    return found


@pytest.mark.parametrize("name", ["begin", "set_pulse"])
def test_a_pin_gets_servo_pulses_only_after_their_width_is_set(name: str) -> None:
    """Before its first width, a timer output that is connected would stay high for a whole period of 20 ms."""
    body = dict(functions((toolchain.SORTER / "servo.cpp").read_text()))[name]
    assert 0 <= body.index("compare, static_cast") < body.index("connect(index, ")


@pytest.mark.parametrize("file", toolchain.HARDWARE)
def test_what_an_interrupt_changes_is_accessed_with_interrupts_off(file: str) -> None:
    assert unguarded((toolchain.SORTER / f"{file}.cpp").read_text()) == []
