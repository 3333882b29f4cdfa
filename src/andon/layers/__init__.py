"""Building blocks that more than one detector uses."""
