"""EAST: the likelihood of whitened features under a closed-form mixture, and what the image is made of."""

from andon.detectors.east.detector import EAST, EASTConfig

__all__ = ["EAST", "EASTConfig"]
