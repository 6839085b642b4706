import dataclasses

import pytest
import torch

from expportrait.dit.adapter.config import AdapterConfig
from expportrait.dit.head_conditions import control_video, explicit_numbers, held_motion, reference_geometry, source_motion
from expportrait.proxy.posing import output_camera

from .still_head import moved, still_proxy

WIDTH, HEIGHT = 128, 96


@pytest.fixture(scope="module")
def proxy(model):
    return still_proxy(model)


def camera_of(proxy):
    return output_camera(proxy.camera, WIDTH, HEIGHT)


def config_of(model, **values):
    size = len(model.expression_names) + 9
    return AdapterConfig(**({"width": 32, "layers": 4, "explicit_size": size, "head_model": model.model_id} | values))


def turning(proxy, frames=5):
    parts = [moved(proxy, turn=(0, 0.1 * k, 0)) for k in range(frames)]
    names = ("expression", "joints", "translation", "valid")
    return dataclasses.replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def test_channels_come_in_the_configs_order(model, proxy):
    motion = turning(proxy)
    names = ("depth", "normals", "rays", "lines")
    mixed = control_video(proxy, motion, model, config_of(model, inputs=names), camera_of(proxy))
    assert mixed.shape == (1, 10, 5, HEIGHT, WIDTH)
    alone = [control_video(proxy, motion, model, config_of(model, inputs=(name,)), camera_of(proxy)) for name in names]
    assert torch.equal(mixed, torch.cat(alone, 1))


def test_signed_normals_are_unit_vectors_on_the_head_and_zero_beside_it(model, proxy):
    normals = control_video(proxy, turning(proxy), model, config_of(model), camera_of(proxy))
    length = normals.norm(dim=1)[0]
    inside = length > 0.9
    assert 0.05 < inside.float().mean() < 0.9
    assert (length[inside] < 1.05).all() and normals[0, :, :, 0, 0].abs().max() == 0
    unit = control_video(proxy, turning(proxy), model, config_of(model, range="unit"), camera_of(proxy))
    assert unit.min() >= 0 and unit.max() <= 1


def test_the_first_frame_of_the_source_pose_is_the_reference(model, proxy):
    config = config_of(model)
    video = control_video(proxy, source_motion(proxy), model, config, camera_of(proxy))
    assert torch.equal(reference_geometry(proxy, model, config, camera_of(proxy)), video[:, :, 0])


def test_the_warped_reference_at_rest_is_the_picture(model, proxy, generator):
    config = config_of(model, inputs=("reference",), range="unit")
    picture = torch.rand(3, proxy.height, proxy.width, generator=generator)
    picture = torch.nn.functional.avg_pool2d(picture[None], 9, 1, 4)[0]  # so smooth that resampling changes little
    with torch.inference_mode():
        video = control_video(proxy, source_motion(proxy), model, config, proxy.camera, picture)
    assert video.shape == (1, 4, 1, proxy.height, proxy.width)
    assert (video[0, :3, 0] - picture).abs().mean() < 0.02
    with pytest.raises(ValueError, match="give the picture that the proxy was built from"):
        control_video(proxy, source_motion(proxy), model, config, camera_of(proxy), picture[:, 1:])
    with pytest.raises(ValueError, match="give the source picture"):
        control_video(proxy, source_motion(proxy), model, config, camera_of(proxy))


def test_motions_are_held_to_length(model, proxy):
    motion = turning(proxy)
    assert torch.equal(held_motion(motion, 9).joints[4:], motion.joints[4:].expand(5, -1, -1))
    assert len(held_motion(motion, 3)) == 3
    with pytest.raises(ValueError, match="no frames"):
        held_motion(motion.select([]), 5)


def test_expression_numbers_of_another_head_are_refused(model, proxy):
    motion, config = turning(proxy), config_of(model)
    assert explicit_numbers(motion, model, config).shape == (1, 5, config.explicit_size)
    for other in ({"head_model": "another"}, {"explicit_size": 7}):
        with pytest.raises(ValueError, match="build the proxy with the adapter's head model"):
            explicit_numbers(motion, model, dataclasses.replace(config, **other))
