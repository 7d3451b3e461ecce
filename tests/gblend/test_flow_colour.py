import numpy as np
import torch
from torchvision.utils import flow_to_image

from gblend.flow_colour import flow_picture, wheel_picture


def test_colours_are_those_of_torchvisions_wheel():
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 3, (40, 50, 2)).astype(np.float32)
    flow[0, :4] = [[3, 0], [-3, 0], [0, 3], [0, -3]]
    longest = float(np.hypot(flow[..., 0], flow[..., 1]).max())
    reference = flow_to_image(torch.from_numpy(flow).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    # The longest displacement itself may end up on either side of the scale.
    within = np.hypot(flow[..., 0], flow[..., 1]) < longest
    ours = flow_picture(flow, scale_px=longest)
    assert np.abs(ours.astype(int) - reference)[within].max() <= 1


def test_a_displacement_beyond_the_scale_is_darker_than_full_colour():
    flow = np.array([[[1.0, 0.0], [2.0, 0.0], [50.0, 0.0]]])
    full, beyond, far = flow_picture(flow, scale_px=1.0)[0].astype(int)
    assert full.tolist() == [255, 0, 0]
    assert beyond.tolist() == far.tolist() == [191, 0, 0]  # three quarters of 255


def test_the_key_has_rest_in_its_middle_and_each_direction_where_it_points():
    key = wheel_picture(41).astype(int)
    assert (key[20, 20] > 240).all()
    assert key[0, 0].tolist() == [255, 255, 255]
    right, left = key[20, 39], key[20, 1]
    assert right[0] > 200 > right[1]
    assert left[2] > 200 > left[0]
