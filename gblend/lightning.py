"""Online Gradient-Blending for `lightning.pytorch.Trainer`: a callback that asks `OnlineBlend` as a loop would.

The only file that imports lightning, and nothing here imports it: ``pip install "gblend[lightning]"``.
"""

from typing import Any

from torch import nn

from gblend.online_blend import OnlineBlend

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError('gblend.lightning needs lightning: pip install "gblend[lightning]"') from error


class OnlineBlendCallback(Callback):
    """Sets ``module.loss_weights`` before every epoch, for the module's ``training_step`` to multiply its losses by.

    Weights are logged as ``weight/<head>``. Estimates are part of Lightning's checkpoints, so a fit that goes on from
    one does not repeat a probe.

    Args:
        blend: Asked for weights; its ``epochs`` are those of the trainer.
        network: What the module trains: a part of it, because a whole `LightningModule` cannot be copied while it
            belongs to a trainer.

    Raises:
        ValueError: When training starts: the trainer has other epochs than ``blend``, or several processes.
    """

    def __init__(self, blend: OnlineBlend, *, network: nn.Module) -> None:
        if isinstance(network, LightningModule):
            raise ValueError(
                f"network must be the torch.nn.Module inside {type(network).__name__}, not the LightningModule itself"
            )
        self.blend = blend
        self.network = network

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would give other weights than those asked for."""
        if trainer.world_size > 1:
            raise ValueError(f"probes train in one process, and the trainer has {trainer.world_size}; use devices=1")
        if trainer.max_epochs != self.blend.epochs:
            raise ValueError(
                f"max_epochs of the trainer ({trainer.max_epochs}) and epochs of the blend ({self.blend.epochs}) must "
                "be the same"
            )
        if self.blend.estimates:  # Where a fit goes on within an epoch, Lightning does not say that one starts.
            pl_module.loss_weights = self.blend.weights_at(trainer.current_epoch, self.network)  # type: ignore[assignment]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Weights of this epoch; probes, where it is the first of a super-epoch."""
        weights = self.blend.weights_at(trainer.current_epoch, self.network)
        pl_module.loss_weights = weights  # type: ignore[assignment]
        pl_module.log_dict({f"weight/{head}": weight for head, weight in weights.items()})

    def state_dict(self) -> dict[str, Any]:
        """Estimates so far."""
        return self.blend.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.blend.load_state_dict(state_dict)
