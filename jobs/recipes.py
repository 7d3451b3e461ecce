"""Named configurations. A recipe is a function; a variant calls another one and changes what differs."""

from collections.abc import Callable
from dataclasses import replace

from gblend.blend_config import ROBUST
from gblend.config import BlendConfig, InputConfig, ModelConfig, OptimConfig, TrainConfig


def small_cpu() -> TrainConfig:
    """Narrow networks on small pictures: minutes on two CPU cores. Takes any data set of this form.

    Not the paper's choices but robust ones: weights under rules against noise, networks judged by the stack of heads.
    """
    return TrainConfig(
        name="small-cpu",
        epochs=10,
        batch_size=16,
        input=InputConfig(frames=8, frame_step=2, crop_px=32, scale_px=36, mel_frames=100),
        model=ModelConfig(visual_grid=4),
        optim=OptimConfig(name="adamw", learning_rate=3e-3, weight_decay=1e-2, schedule="cosine"),
        blend=BlendConfig(holdout_share=0.2, first_epochs=4, next_epochs=3, **ROBUST),
        predict_by="stack",
    )


def demo() -> TrainConfig:
    """`small_cpu` without moving the crop: an Atari screen stands still, and where things are tells the action."""
    base = small_cpu()
    return replace(base, name="demo", input=replace(base.input, scale_px=32))


def paper_r3d50() -> TrainConfig:
    """The paper's ablations on Kinetics: R3D-50 and ResNet-50, 16 frames of 224 px, SGD, 45 epochs, online (10, 5).

    What the paper leaves open follows the code its authors released: learning rate, weight decay, warm-up and steps.
    At 16 frames of 224 px a clip takes about 3 GiB in each 3D trunk: choose workers so that few clips meet on one GPU.
    """
    return TrainConfig(
        name="paper-r3d50",
        epochs=45,
        batch_size=192,  # 24 for each of 8 GPUs
        input=InputConfig(
            frames=16,
            frame_step=1,
            crop_px=224,
            scale_px=256,
            jitter_px=(256, 320),  # The released code draws one of 128 and 160 for crops of 112.
            mel_frames=100,
            flip="horizontal",
        ),
        model=ModelConfig(
            visual_block="r3d",
            visual_depth=50,
            visual_width=64,
            audio_stem="authors",
            audio_depth=50,
            audio_width=64,
            fused_hidden=2048,
        ),
        optim=OptimConfig(
            name="sgd",
            learning_rate=0.08,  # 0.01 for each of 8 workers
            weight_decay=1e-4,
            schedule="step",
            milestones=(20, 30, 40),
            warmup_epochs=10.0,
        ),
        blend=BlendConfig(holdout_share=0.08, first_epochs=10, next_epochs=5),
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {"small-cpu": small_cpu, "paper-r3d50": paper_r3d50, "demo": demo}
"""Name on the command line to recipe."""
