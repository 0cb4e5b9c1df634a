"""A training in processes of its own: ``driver.py <steps before it is interrupted, or -1> key=value ...``."""

import sys

from trainings import interrupt_after

from vidgen_core import train
from vidgen_core.config import compose
from vidgen_core.training.machine import end_processes

steps = int(sys.argv[1])
if steps >= 0:
    train.optimise = interrupt_after(steps)
try:
    train.train(compose(sys.argv[2:], entry="train"))
except KeyboardInterrupt:
    print("interrupted")
end_processes()
