"""What training workers do together, through `torch.distributed`; with one process every function is the identity."""

import io
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_workers(values: Tensor) -> Tensor:
    """The same-shaped tensors of all workers, added in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def everywhere(yes: bool, *, device: torch.device) -> bool:
    """Whether it is so on every worker: one answer for all, so that none goes on alone and waits for the others."""
    return int(sum_over_workers(torch.tensor(int(yes), device=device))) == world_size()


def first_without(yes: bool, *, device: torch.device) -> int | None:
    """The first worker on which it is not so; None: it is so on every worker."""
    without = torch.zeros(world_size(), dtype=torch.int64, device=device)
    without[rank()] = int(not yes)
    found = sum_over_workers(without).nonzero()
    return int(found[0]) if len(found) else None


def of_worker_0(number: int, *, device: torch.device) -> int:
    """The number that worker 0 gave."""
    return int(sum_over_workers(torch.tensor(number if rank() == 0 else 0, dtype=torch.int64, device=device)))


def values_of_worker_0(values: Any, *, device: torch.device) -> Any:
    """The plain values (tensors, numbers, text, lists, dictionaries) that worker 0 gave; others' are not read."""
    if world_size() == 1:
        return values
    file = io.BytesIO()
    torch.save(values, file)
    size = of_worker_0(file.tell(), device=device)
    flat = torch.zeros(size, dtype=torch.uint8)
    if rank() == 0:
        flat = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    sent = sum_over_workers(flat.to(device)).cpu()
    return torch.load(io.BytesIO(sent.numpy().tobytes()), weights_only=True)


def wait_for_all() -> None:
    """Returns when every worker has come here."""
    if world_size() > 1:
        dist.barrier()


def share_gradients(model: nn.Module, *, unused: bool) -> nn.Module:
    """The model, averaging its gradients over workers in every backward pass.

    Buffers are left alone: `average_buffers` makes them agree, at moments that do not depend on who measures when.

    Args:
        model: On its device, with the same parameters on every worker.
        unused: Whether some parameters may get no gradient.
    """
    if world_size() == 1:
        return model
    with warnings.catch_warnings():
        # Newer releases rename the setting; older ones, which we support, know only this name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)


def keep_gradients(network: nn.Module) -> AbstractContextManager[object]:
    """For a forward and backward pass whose gradients what `share_gradients` returned is to keep for the next one."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def average_gradients(module: nn.Module) -> None:
    """Give every worker the mean of all workers' gradients of a module that `share_gradients` does not know of."""
    if world_size() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            sum_over_workers(parameter.grad).div_(world_size())


def average_buffers(model: nn.Module) -> None:
    """Give every worker the mean of all workers' floating-point buffers (BatchNorm's running statistics)."""
    if world_size() == 1:
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    sum_over_workers(flat).div_(world_size())
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
