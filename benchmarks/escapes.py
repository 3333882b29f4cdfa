"""How often the interval of the escape rate holds the truth, on simulated lines.

    python benchmarks/escapes.py --runs 1000

Each line judges parts, draws some of those that passed at its rate, and a person who is always right reviews all drawn ones.
"""

from __future__ import annotations

import argparse

import numpy as np

from andon.line.review.figures import Stratum, escapes

LINES: dict[str, tuple[tuple[int, float, float], ...]] = {
    "one station, 0.1 % bad, rate 0.5 %": ((200_000, 0.005, 0.001),),
    "one station, 1 % bad, rate 0.5 %": ((100_000, 0.005, 0.01),),
    "one station, no bad part, rate 0.5 %": ((100_000, 0.005, 0.0),),
    "two stations, 1 % and 0.2 % bad, rates 2 % and 0.5 %": ((40_000, 0.02, 0.01), (120_000, 0.005, 0.002)),
}
"""Parts that passed, rate of the draw, share of bad parts, of each station."""


def run(
    stations: tuple[tuple[int, float, float], ...], chance: np.random.Generator
) -> tuple[bool, float, int]:
    """Whether the interval holds the truth, its width, and how many parts were drawn."""
    strata, bad_parts, all_parts = [], 0, 0
    for number, (parts, rate, share) in enumerate(stations):
        bad = int(chance.binomial(parts, share))
        drawn_bad, drawn_good = int(chance.binomial(bad, rate)), int(chance.binomial(parts - bad, rate))
        strata.append(Stratum(f"station {number}", rate, drawn_bad + drawn_good, drawn_good, drawn_bad, 0))
        bad_parts, all_parts = bad_parts + bad, all_parts + parts
    found = escapes(strata)
    return found.low <= bad_parts / all_parts <= found.high, found.high - found.low, found.drawn


def main() -> None:
    """Print one row of a table for each line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| line | holds the truth | mean width | drawn parts |\n|---|---|---|---|")
    for name, stations in LINES.items():
        chance = np.random.default_rng(options.seed)
        found = [run(stations, chance) for _ in range(options.runs)]
        held = sum(each[0] for each in found)
        width, drawn = np.mean([each[1] for each in found]), np.mean([each[2] for each in found])
        print(f"| {name} | {held} of {options.runs} | {100 * width:.2f} % | {drawn:.0f} |")


if __name__ == "__main__":
    main()
