"""What a seed of random draws may be. Imports nothing heavy, so that the command line can say it at once."""

from numbers import Integral

from andon.core.errors import ConfigError

LARGEST_SEED = 2**63 - 1
"""Seeds are whole numbers from 0 to this, which is what every generator takes."""


def check_seed(seed: object) -> None:
    """Raise `ConfigError` for what is no seed."""
    if not isinstance(seed, Integral) or not 0 <= int(seed) <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed!r}, must be a whole number from 0 to {LARGEST_SEED}")
