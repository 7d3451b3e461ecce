"""A network as training wants it: made anew or read back, before the first step."""

from gblend.batch_norm import share_batch_norm, stay_eager
from gblend.config import ComputeConfig, TrainConfig
from gblend.model import BlendModel
from gblend.resnet import Trunk


def prepare(model: BlendModel, config: TrainConfig, compute: ComputeConfig) -> None:
    """In place; copies of its branches are like it.

    Raises:
        ValueError: A network that does not go together with the settings.
    """
    if config.batch_norm == "sync":
        share_batch_norm(model)
    for part in model.modules():
        if isinstance(part, Trunk):
            part.use_memory_format(compute.memory_format)
    if compute.compile == "inductor":
        stay_eager()
        model.compile_parts()
