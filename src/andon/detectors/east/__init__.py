"""EAST: a regularised Gaussian at each place of the image, and the nearest neighbour among patches of good images."""

from andon.detectors.east.detector import EAST
from andon.detectors.east.settings import EASTConfig

__all__ = ["EAST", "EASTConfig"]
