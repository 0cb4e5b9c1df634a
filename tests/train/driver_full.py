"""The command, with no space left where the first process writes: ``driver_full.py key=value ...``."""

import os
import sys

from vidgen_core.cli import main
from vidgen_core.training import checkpoints


def full(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


if os.environ["RANK"] == "0":
    checkpoints.save_file = full
sys.exit(main(["train", *sys.argv[1:]]))
