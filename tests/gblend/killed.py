"""Begins a run and kills its own process, as ``kill -9`` does: ``python -m tests.gblend.killed DIRECTORY``.

It dies in the third step of its three probes, which have two steps an epoch.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from tests.gblend.stops import stopping
from tests.gblend.test_restart import carry_out


def die(moments: list[str]) -> None:
    if moments.count("weights: step") == 8:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with stopping(die):
        carry_out("online", Path(sys.argv[1]), every=2)
