"""The pins of the Mega 2560, lane by lane, for the simulator and the wiring guide.

The tests run the real firmware in a simulator with these pins.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Pin:
    """A pin. `port` is its port and bit ("A0" is bit 0 of port A), and `label` is the text that is printed on the board ("D22")."""

    port: str
    label: str


@dataclass(frozen=True)
class LanePins:
    """The pins of one lane. `compare` is the timer output that makes the servo's pulse, such as "4A" for OC4A."""

    servo: Pin
    compare: str
    eye1: Pin
    eye2: Pin
    encoder_a: Pin
    encoder_b: Pin
    estop: Pin
    servo_power: Pin
    trigger: Pin
    relay: Pin
    green: Pin
    yellow: Pin
    red: Pin
    belt: Pin
    end_switch: Pin
    chute_eye: Pin
    chute_full: Pin
    button: Pin


LANES: tuple[LanePins, ...] = (
    LanePins(
        servo=Pin("H3", "D6"),
        compare="4A",
        eye1=Pin("A0", "D22"),
        eye2=Pin("L1", "D48"),
        encoder_a=Pin("E4", "D2"),
        encoder_b=Pin("E5", "D3"),
        estop=Pin("C7", "D30"),
        servo_power=Pin("C3", "D34"),
        trigger=Pin("F0", "A0"),
        relay=Pin("F4", "A4"),
        green=Pin("K0", "A8"),
        yellow=Pin("K1", "A9"),
        red=Pin("K2", "A10"),
        belt=Pin("D7", "D38"),
        end_switch=Pin("H5", "D8"),
        chute_eye=Pin("B3", "D50"),
        chute_full=Pin("J1", "D14"),
        button=Pin("G5", "D4"),
    ),
    LanePins(
        servo=Pin("B5", "D11"),
        compare="1A",
        eye1=Pin("A2", "D24"),
        eye2=Pin("A3", "D25"),
        encoder_a=Pin("D3", "D18"),
        encoder_b=Pin("D2", "D19"),
        estop=Pin("C6", "D31"),
        servo_power=Pin("C2", "D35"),
        trigger=Pin("F1", "A1"),
        relay=Pin("F5", "A5"),
        green=Pin("K4", "A12"),
        yellow=Pin("K5", "A13"),
        red=Pin("K6", "A14"),
        belt=Pin("G2", "D39"),
        end_switch=Pin("H6", "D9"),
        chute_eye=Pin("B2", "D51"),
        chute_full=Pin("J0", "D15"),
        button=Pin("A1", "D23"),
    ),
    LanePins(
        servo=Pin("E3", "D5"),
        compare="3A",
        eye1=Pin("A4", "D26"),
        eye2=Pin("A5", "D27"),
        encoder_a=Pin("D1", "D20"),
        encoder_b=Pin("D0", "D21"),
        estop=Pin("C5", "D32"),
        servo_power=Pin("C1", "D36"),
        trigger=Pin("F2", "A2"),
        relay=Pin("F6", "A6"),
        green=Pin("L7", "D42"),
        yellow=Pin("L6", "D43"),
        red=Pin("L5", "D44"),
        belt=Pin("G1", "D40"),
        end_switch=Pin("H1", "D16"),
        chute_eye=Pin("B1", "D52"),
        chute_full=Pin("K3", "A11"),
        button=Pin("L0", "D49"),
    ),
    LanePins(
        servo=Pin("H4", "D7"),
        compare="4B",
        eye1=Pin("A6", "D28"),
        eye2=Pin("A7", "D29"),
        encoder_a=Pin("B4", "D10"),
        encoder_b=Pin("B6", "D12"),
        estop=Pin("C4", "D33"),
        servo_power=Pin("C0", "D37"),
        trigger=Pin("F3", "A3"),
        relay=Pin("F7", "A7"),
        green=Pin("L4", "D45"),
        yellow=Pin("L3", "D46"),
        red=Pin("L2", "D47"),
        belt=Pin("G0", "D41"),
        end_switch=Pin("H0", "D17"),
        chute_eye=Pin("B0", "D53"),
        chute_full=Pin("K7", "A15"),
        button=Pin("B7", "D13"),
    ),
)


@dataclass(frozen=True)
class PlantPins:
    """The pins of a lane's plant interface. docs/plant-interface.md explains the signals."""

    ready: Pin
    busy: Pin
    result_valid: Pin
    reject: Pin
    heartbeat: Pin
    fault: Pin
    buzzer: Pin
    reset: Pin
    bypass: Pin


def _plant_pins(spare: LanePins) -> PlantPins:
    """Returns the pins of a plant interface. They are pins of the lane `spare`, which must not have a belt or a gate."""
    return PlantPins(
        ready=spare.relay,
        busy=spare.green,
        result_valid=spare.trigger,
        reject=spare.servo,
        heartbeat=spare.servo_power,
        fault=spare.red,
        buzzer=spare.yellow,
        reset=spare.estop,
        bypass=spare.belt,
    )


# The pins of the plant interfaces. The interface of lane 1 uses the pins of lane 3, and that of lane 2 uses the pins of lane 4.
PLANT: tuple[PlantPins, ...] = tuple(_plant_pins(spare) for spare in LANES[2:])

# The pins that the board drives. All other pins are inputs.
LANE_OUTPUTS = frozenset({"servo", "trigger", "relay", "green", "yellow", "red"})
PLANT_OUTPUTS = frozenset({"ready", "busy", "result_valid", "reject", "heartbeat", "fault", "buzzer"})


def inputs_of(pins: LanePins | PlantPins) -> dict[str, Pin]:
    """Returns the inputs of a lane or of a plant interface by their names."""
    outputs = LANE_OUTPUTS if isinstance(pins, LanePins) else PLANT_OUTPUTS
    named = {each.name: getattr(pins, each.name) for each in fields(pins)}
    return {name: pin for name, pin in named.items() if isinstance(pin, Pin) and name not in outputs}
