"""`python -m firmware` builds the board's firmware. It prints how much memory the firmware needs, and the path of the HEX file."""

from __future__ import annotations

import sys

from firmware import toolchain


def main() -> int:
    """Builds the firmware and prints its size. Returns the exit status, which is 1 if the firmware cannot be built."""
    try:
        image = toolchain.build_hex_image()
        flash, ram = toolchain.memory_use(toolchain.build_firmware())
    except toolchain.ToolchainError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"flash {flash} of {toolchain.FLASH_BYTES} bytes ({flash / toolchain.FLASH_BYTES:.1%})")
    print(f"RAM   {ram} of {toolchain.RAM_BYTES} bytes ({ram / toolchain.RAM_BYTES:.1%})")
    print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
