"""What a seed of random draws may be. Imports nothing, so that the command line can say it at once."""

LARGEST_SEED = 2**63 - 1
"""Seeds are whole numbers of 64 bits with a sign, which is what every generator takes."""
