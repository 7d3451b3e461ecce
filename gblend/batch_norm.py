"""BatchNorm over the clips of all workers, as one worker with the whole batch would compute it.

PyTorch's own (`torch.nn.SyncBatchNorm`) is for GPUs alone. This one is plain tensor operations around two sums over
workers, so it is the same on any device and is tested where there is no GPU. Workers bring their mean, variance and
count in rows of their own, which are added to zeros: what comes out does not depend on the order of the addition.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from gblend import collective

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""What `share_batch_norm` replaces. A class derived from one of them may do more, and is refused."""


class SharedBatchNorm(_BatchNorm):
    """Parameters, buffers and eval mode of `torch.nn.BatchNorm2d` and the like; statistics of all workers in training.

    Every worker must call it as often as the others, if need be with a batch of no clips.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> "SharedBatchNorm":
        """With the parameters and buffers of another one, not copies."""
        shared = cls(
            norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        shared._parameters, shared._buffers = norm._parameters, norm._buffers
        return shared.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs (batch, channels, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, ...) to the same shape; the batch may be empty when that of another worker is not."""
        if not self.training or collective.world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        result, mean, variance, count = _Normalised.apply(input, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1).clamp(min=1)), count > 0)
        return result

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor, anything: Tensor) -> None:
        """Move the running statistics, without asking the device for a number: that would make it wait."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(anything)
        share = 1.0 / self.num_batches_tracked.clamp(min=1) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            running.lerp_(now.to(running.dtype), (share * anything).to(running.dtype))


_FORWARD = SharedBatchNorm.forward


def stay_eager() -> None:
    """Keep what exchanges numbers with other workers out of compiled code.

    To be called where something is compiled, and only there: it imports the compiler, which takes seconds.
    """
    SharedBatchNorm.forward = cast(Any, torch.compiler.disable(_FORWARD))


def share_batch_norm(module: nn.Module) -> None:
    """Replace every BatchNorm inside a network, in place; names of parameters and buffers stay.

    Raises:
        ValueError: A BatchNorm of a class of its own.
    """
    for name, child in module.named_children():
        if type(child) in KNOWN:
            setattr(module, name, SharedBatchNorm.of(child))  # type: ignore[arg-type]
        elif isinstance(child, _BatchNorm) and not isinstance(child, SharedBatchNorm):
            raise ValueError(
                f"batch_norm sync is for PyTorch's own BatchNorm, and the network has a {type(child).__module__}."
                f"{type(child).__qualname__}; use batch_norm local, or another network"
            )
        else:
            share_batch_norm(child)


def waits_for_workers(module: nn.Module) -> bool:
    """Whether a forward pass exchanges statistics with other workers."""
    return collective.world_size() > 1 and any(
        isinstance(part, SharedBatchNorm) and part.training for part in module.modules()
    )


class _Normalised(Function):
    """Batch, scale and offset to the normalised batch, and the statistics of all workers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        axes, channels = [0, *range(2, x.dim())], x.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        rows = torch.zeros(collective.world_size(), 2 * channels + 1, dtype=wide, device=x.device)
        if x.numel() > 0:
            variance, mean = torch.var_mean(x.to(wide), axes, correction=0)
            size = torch.full((1,), x.numel() / channels, dtype=wide, device=x.device)
            rows[collective.rank()] = torch.cat([mean, variance, size])
        means, variances, sizes = collective.sum_over_workers(rows).split([channels, channels, 1], dim=1)
        count = sizes.sum()
        shares = sizes / count.clamp(min=1)
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(dim=0)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.mark_non_differentiable(mean, variance, count)
        scale, offset = (None if each is None else each.to(wide) for each in (weight, bias))
        return F.batch_norm(x, mean, variance, scale, offset, training=False, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, scale, count = ctx.saved_tensors
        (gradient, *_) = gradients
        assert gradient is not None
        axes, per_channel = [0, *range(2, x.dim())], (1, -1, *([1] * (x.dim() - 2)))
        given = gradient.to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(per_channel)) * scale.view(per_channel)
        own = torch.stack([given.sum(axes), (given * normalised).sum(axes)])
        offset_part, scale_part = (collective.sum_over_workers(own.clone()) / count.clamp(min=1)).unbind()
        factor = scale if weight is None else scale * weight
        to_x = normalised.mul_(-scale_part.view(per_channel)).add_(given).sub_(offset_part.view(per_channel))
        to_weight, to_bias = (None, None) if weight is None else (own[1].to(weight.dtype), own[0].to(weight.dtype))
        return to_x.mul_(factor.view(per_channel)).to(x.dtype), to_weight, to_bias, None
