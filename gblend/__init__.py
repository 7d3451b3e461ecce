"""Gradient-Blending: the method, its networks and their training."""

from gblend.config import (
    BlendConfig,
    ComputeConfig,
    EncodersConfig,
    InputConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from gblend.data import RunData, load_run_data
from gblend.loop import Position, train
from gblend.loss import blended_loss
from gblend.methods import RunSpec
from gblend.model import BlendModel, make_model
from gblend.ogr import BlendWeights, LossPair, blend_weights
from gblend.online_blend import OnlineBlend, Probe
from gblend.outputs import HeadOutputs, join_outputs, load_outputs
from gblend.predictions import score_predictions
from gblend.runner import Runner
from gblend.sample_losses import SampleLosses, gb_estimate

__all__ = [
    "BlendConfig",
    "BlendModel",
    "BlendWeights",
    "ComputeConfig",
    "EncodersConfig",
    "HeadOutputs",
    "InputConfig",
    "LossConfig",
    "LossPair",
    "ModelConfig",
    "OnlineBlend",
    "OptimConfig",
    "Position",
    "Probe",
    "RunData",
    "RunSpec",
    "Runner",
    "SampleLosses",
    "TrainConfig",
    "blend_weights",
    "blended_loss",
    "gb_estimate",
    "join_outputs",
    "load_outputs",
    "load_run_data",
    "make_model",
    "score_predictions",
    "train",
]
