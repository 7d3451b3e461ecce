"""Gradient-Blending: the method, its networks and their training."""

from gblend.config import BlendConfig, ComputeConfig, EncodersConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig
from gblend.data import RunData, load_run_data
from gblend.loop import Position, blended_loss, train
from gblend.model import BlendModel, make_model
from gblend.ogr import BlendWeights, LossPair, blend_weights
from gblend.runner import Runner, RunSpec

__all__ = [
    "BlendConfig",
    "BlendModel",
    "BlendWeights",
    "ComputeConfig",
    "EncodersConfig",
    "InputConfig",
    "LossPair",
    "ModelConfig",
    "OptimConfig",
    "Position",
    "RunData",
    "RunSpec",
    "Runner",
    "TrainConfig",
    "blend_weights",
    "blended_loss",
    "load_run_data",
    "make_model",
    "train",
]
