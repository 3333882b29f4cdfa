"""Weights, backbones, cached features, the one training loop and the checks of what was learned."""
