"""Wall seconds of the commands that must answer at once, and of the demo: medians, each in a fresh process.

``python benchmarks/startup.py``
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time

SCENES = '["a red circle moves right on a white background","the red circle moves up on a white background"]'
VIDGEN = [sys.executable, "-m", "vidgen_core"]


def wall(arguments: list[str], repeats: int) -> tuple[float, str]:
    """Median wall seconds of a command, and the standard error stream of its last run."""
    times, text = [], ""
    for _ in range(repeats):
        start = time.perf_counter()
        text = subprocess.run([*VIDGEN, *arguments], check=True, capture_output=True, text=True).stderr
        times.append(time.perf_counter() - start)
    return statistics.median(times), text


def main() -> None:
    for arguments in (["--help"], ["list"]):
        print(f"| vidgen {arguments[0]} | {wall(arguments, 9)[0]:.2f} s |")
    with tempfile.TemporaryDirectory() as folder:
        command = ["method=talc", f"prompt={SCENES}", f"output.root={folder}"]
        seconds, text = wall(command, 3)
        generation = re.findall(r"after ([\d.]+) s", text)
        print(f"| demo | {seconds:.1f} s, of which sampling {generation[-1] if generation else '?'} s |")


if __name__ == "__main__":
    main()
