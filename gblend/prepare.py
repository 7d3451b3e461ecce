"""A network as training wants it: made anew or read back, before the first step."""

from gblend.batch_norm import share_batch_norm
from gblend.config import TrainConfig
from gblend.model import BlendModel


def prepare(model: BlendModel, config: TrainConfig) -> None:
    """In place; copies of its branches are like it.

    Raises:
        ValueError: A network that does not go together with the settings.
    """
    if config.batch_norm == "sync":
        share_batch_norm(model)
