"""Workers for probes that are this process: what they are asked is carried out when somebody looks for the answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from gblend.config import ComputeConfig
from gblend.data import RunData
from gblend.probe_task import Arrivals, ProbeTask
from gblend.probes import carry_out
from gblend.run_state import State


@dataclass(kw_only=True)
class ThisProcess:
    """An `Elsewhere` of one worker; every look finds one more probe, the last branch first."""

    data: RunData
    asked: list[ProbeTask] = field(default_factory=list)

    def __call__(self, task: ProbeTask) -> Arrivals:
        self.asked.append(task)
        left = list(task.branches)

        def arrivals() -> Mapping[str, State]:
            branch = left.pop()
            return {branch: carry_out(task, branch, self.data, device=torch.device("cpu"), compute=ComputeConfig())}

        return arrivals
