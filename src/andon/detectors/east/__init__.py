"""EAST: likelihood of whitened features under a mixture of Gaussians, and the composition of the image."""

from andon.detectors.east.detector import EAST, EASTConfig

__all__ = ["EAST", "EASTConfig"]
