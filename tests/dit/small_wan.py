"""Tiny random Wan pipelines of diffusers, without any download."""

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel

WIDTH, LAYERS, TEXT = 24, 4, 16


def transformer_of(channels=36, seed=0):
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=WIDTH // 2, in_channels=channels, out_channels=16, text_dim=TEXT, freq_dim=32, ffn_dim=32,
        num_layers=LAYERS,
    ).eval()  # fmt: skip


def vae_of():
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]).eval()


def pipeline_of(image_to_video=True):
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae_of()}
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000)
    if image_to_video:
        return WanImageToVideoPipeline(**parts, scheduler=scheduler, transformer=transformer_of(), image_encoder=None, image_processor=None)
    return WanPipeline(**parts, scheduler=scheduler, transformer=transformer_of(16))
