"""Tiny nets of the memory families with random weights, as folders; every object is always there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vidseg_core.models.hf_nets import silent_transformers

SIZE = 64
_SIZES = [[16, 16], [8, 8], [4, 4]]
_COMMON: dict[str, Any] = {
    "prompt_encoder_config": {"hidden_size": 128, "image_size": SIZE},
    "mask_decoder_config": {
        "hidden_size": 128,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "iou_head_depth": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
    "image_size": SIZE,
    "num_maskmem": 3,
    "max_object_pointers_in_encoder": 5,
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 32,
    "memory_fuser_num_layers": 1,
}
"""The memory attention takes 64 channels, whatever its config says, and fewer than the rest has."""


def tiny_memory_net(family: str, folder: Path, seed: int = 0) -> Path:
    """The folder, with config.json and model.safetensors in it."""
    transformers = silent_transformers()
    torch.manual_seed(seed)
    model = _sam2(transformers) if family == "sam2" else _edgetam(transformers)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "pred_obj_score_head" in name:  # a random net would see no object anywhere
                value.fill_(5.0 if name.endswith("bias") else 0.0)
            if value.ndim > 1 and name.startswith(("memory", "mask_decoder", "object_pointer")):
                value.mul_(4.0)  # and says nearly the same whatever it remembers
            if name.endswith("memory_temporal_positional_encoding") or "no_memory" in name:
                value.normal_()
    model.save_pretrained(folder)
    return folder


def _sam2(transformers: Any) -> Any:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIZE, SIZE],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=_SIZES,
        fpn_hidden_size=128,
    )
    own = {"memory_attention_feed_forward_hidden_size": 32}
    return transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig(vision_config=vision, **own, **_COMMON)
    ).eval()


def _edgetam(transformers: Any) -> Any:
    backbone = transformers.TimmWrapperConfig(
        architecture="test_convnext",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 48, 32, 24],
        backbone_feature_sizes=_SIZES,
        fpn_hidden_size=128,
    )
    own = {
        "memory_attention_mlp_hidden_size": 32,
        "memory_attention_rope_k_sizes": [2, 2],
        "perceiver_resampler_num_latents": 4,
        "perceiver_resampler_num_latents_2d": 4,
        "perceiver_resampler_hidden_size": 64,
        "perceiver_resampler_mlp_intermediate_size": 16,
        "perceiver_resampler_attention_head_dim": 64,
        "perceiver_resampler_num_layers": 1,
    }
    return transformers.EdgeTamVideoModel(
        transformers.EdgeTamVideoConfig(vision_config=vision, **own, **_COMMON)
    ).eval()
