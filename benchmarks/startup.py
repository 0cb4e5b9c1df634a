"""Wall seconds of the commands that must answer at once, also with 50 further plugins installed, and of the demo:
medians, each in a fresh process.

``python benchmarks/startup.py``
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vidgen_core.commands.new import FAMILIES, package_files

PROMPT = "a red circle moves right on a white background"
SCENES = '["a red circle moves right on a white background","the red circle moves up on a white background"]'
PLUGINS = 50
VIDGEN = [sys.executable, "-m", "vidgen_core"]


def wall(arguments: list[str], repeats: int, site: str = "") -> tuple[float, str]:
    """Median wall seconds of a command, and the standard error stream of its last run; packages of ``site`` count."""
    times, text = [], ""
    environment = {**os.environ, "PYTHONPATH": site} if site else None
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run([*VIDGEN, *arguments], check=True, capture_output=True, text=True, env=environment)
        text = done.stderr
        times.append(time.perf_counter() - start)
    return statistics.median(times), text


def install(site: Path, plugins: int) -> None:
    """Put packages as `vidgen new` writes them where python looks for packages, as pip would."""
    for number in range(plugins):
        name = f"idea_{number}"
        for path, text in package_files(name, FAMILIES[number % len(FAMILIES)]).items():
            if path.startswith(f"vidgen_{name}/"):
                (site / path).parent.mkdir(parents=True, exist_ok=True)
                (site / path).write_text(text)
        info = site / f"vidgen_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vidgen-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vidgen]\n{name} = vidgen_{name}\n")


def main() -> None:
    for arguments in (["--help"], ["list"]):
        print(f"| vidgen {arguments[0]} | {wall(arguments, 9)[0]:.2f} s |")
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), PLUGINS)
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder], check=True)  # as pip does
        print(f"| vidgen list with {PLUGINS} plugins more | {wall(['list'], 9, folder)[0]:.2f} s |")
    with tempfile.TemporaryDirectory() as folder:
        command = ["method=talc", f"prompt={SCENES}", f"output.root={folder}"]
        clip = wall([f"prompt={PROMPT}", f"output.root={folder}"], 3)[0]
        print(f"| 16 frames with the default sampler | {clip:.1f} s |")
        seconds, text = wall(command, 3)
        generation = re.findall(r"after ([\d.]+) s", text)
        print(f"| demo | {seconds:.1f} s, of which sampling {generation[-1] if generation else '?'} s |")


if __name__ == "__main__":
    main()
