"""Networks of a few hundred parameters lose more to threads than they gain."""

import torch

torch.set_num_threads(1)
