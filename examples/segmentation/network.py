"""The network, for those who make its weights and those who use them."""

from torch import nn


def network() -> nn.Module:
    """(batch, 1, depth, height, width) → how likely each voxel is part of the structure."""
    smooth = nn.Conv3d(1, 1, kernel_size=3, padding=1, padding_mode="replicate")
    return nn.Sequential(smooth, nn.Conv3d(1, 1, kernel_size=1), nn.Sigmoid())
