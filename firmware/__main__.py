"""`python -m firmware`: builds the board's firmware, says how full the board is and where the HEX file lies."""

from __future__ import annotations

import sys

from firmware import toolchain


def main() -> int:
    try:
        image = toolchain.hex_image()
        flash, ram = toolchain.sizes(toolchain.firmware())
    except toolchain.ToolchainError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"flash {flash} of {toolchain.FLASH_BYTES} bytes ({flash / toolchain.FLASH_BYTES:.1%})")
    print(f"RAM   {ram} of {toolchain.RAM_BYTES} bytes ({ram / toolchain.RAM_BYTES:.1%})")
    print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
