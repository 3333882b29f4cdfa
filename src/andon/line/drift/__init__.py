"""Drift watch: whether images and scores of good parts still look as when the model was released, and why not."""
