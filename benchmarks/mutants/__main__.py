"""Break a line of the code at a time, and count how often a test notices.

    python -m pip install -r benchmarks/mutants/requirements.txt
    python -m benchmarks.mutants [--count 300] [--seed 0] [--minutes 480] [--rooms core parts ...]
    python -m benchmarks.mutants --named

A sample of mutants of `core`, `parts`, `solve` and `run` is drawn: a file by its size, a place in
it, and what cosmic-ray's operators make of that place. Each is put in the place of its module while
the tests that name the module run; the tree itself is never changed. What runs in a process of its
own (the command line) sees the sound code. With `--named`, the mutants of `named.toml` are tried
instead, each of which must be noticed.

A mutant is killed where a test fails that passes without it, or none ends in time. Some that
survive change nothing that can be told; they count as survivors all the same. As a sample tells
the share of all mutants only so well, the score comes with its standard error. It is written after
every mutant: a run may be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from thresher.core.files import write_text

from ..machine import provenance
from .draw import ROOMS, draw
from .named import named
from .trial import SECONDS, Mutant, Outcome, tried

RESULTS = Path(__file__).parents[1] / "results" / "mutants.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=480.0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    mutants = named() if options.named else draw(options.count, options.seed, options.rooms)
    drawn = {"seed": options.seed, "asked": options.count, "rooms": options.rooms}
    drawn |= {"seconds": SECONDS} | provenance("cosmic-ray", "pytest")
    outcomes = []
    for outcome in run(mutants, time.monotonic() + 60 * options.minutes):
        outcomes.append(outcome)
        told = f"{outcome.word}: {outcome.mutant} ({outcome.seconds:.0f} s)"
        print(f"{len(outcomes)}/{len(mutants)} {told}", flush=True)
        if not options.named:
            write_text(options.out, json.dumps(drawn | summary(outcomes), indent=2) + "\n")
    found = summary(outcomes)
    print(json.dumps(found, indent=2))
    if options.named:
        sys.exit(1 if found["survived"] or found["unknown"] else 0)


def run(mutants: list[Mutant], deadline: float) -> Iterator[Outcome]:
    """Try mutants one after another until the time is over."""
    for mutant in mutants:
        if time.monotonic() > deadline:
            break
        yield tried(mutant)


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """Return counts, by room too, the share that was killed, and what survived."""
    words = Counter(outcome.word for outcome in outcomes)
    judged = words["killed"] + words["survived"]
    score = words["killed"] / judged if judged else None
    rooms = {outcome.mutant.room: Counter[str]() for outcome in outcomes}
    for outcome in outcomes:
        rooms[outcome.mutant.room][outcome.word] += 1
    return {
        "tried": len(outcomes),
        "killed": words["killed"],
        "survived": words["survived"],
        "unknown": words["unknown"],
        "score": score,
        "standard_error": None if score is None else math.sqrt(score * (1 - score) / judged),
        "by_room": {room: dict(counts) for room, counts in sorted(rooms.items())},
        "survivors": [str(o.mutant) for o in outcomes if o.word != "killed"],
    }


if __name__ == "__main__":
    main()
