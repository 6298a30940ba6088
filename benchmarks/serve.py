"""Tokens per second of `thresher serve`, by how many texts are asked for at a time.

    python -m benchmarks.serve MODEL [--bits 4] [--tokens 128]

MODEL is what `thresher serve` takes. As many clients as texts ask for one after another, all of
them at once, for short prompts' greedy continuations; rounds of every count follow each other in
turn. Wants a quiet machine. Results are merged into ``benchmarks/results/serve.json``.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from thresher.core.files import write_text

from . import machine

RESULTS = Path(__file__).parent / "results" / "serve.json"
COUNTS = (1, 2, 4, 8)
TOPICS = ("rivers", "bread", "the moon", "winter", "old maps", "bees", "a long road", "music")


@contextmanager
def served(model: str, options: list[str]) -> Iterator[str]:
    """Run the server until the context ends; gives its address."""
    command = [sys.executable, "-m", "thresher", "serve", model, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[^\s;]+", process.stdout.readline())
            if found is None:
                raise SystemExit("the server has not started")
            yield found[0]
        finally:
            process.terminate()


def ask(address: str, topic: str, tokens: int) -> int:
    """Return how many tokens an answer had."""
    body = {"prompt": f"Let me tell you about {topic}.", "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(
        f"{address}/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return int(json.load(response)["usage"]["completion_tokens"])


def rate(address: str, count: int, tokens: int) -> float:
    """Return the tokens per second of `count` texts together."""
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        found = list(pool.map(lambda topic: ask(address, topic, tokens), TOPICS[:count]))
        return sum(found) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--bits", choices=("4", "8"))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    busy = machine.busy_percent()
    rounds: dict[int, list[float]] = {count: [] for count in COUNTS}
    with served(options.model, ["--bits", options.bits] if options.bits else []) as address:
        for _ in range(options.rounds + 1):  # the first one finds memory and warms it
            for count in COUNTS:
                rounds[count].append(rate(address, count, options.tokens))
    rates = {count: statistics.median(found[1:]) for count, found in rounds.items()}
    row = {
        "tokens_per_second": rates,
        "spread": {count: [min(found[1:]), max(found[1:])] for count, found in rounds.items()},
        "gain_of_8": rates[8] / rates[1],
        "tokens": options.tokens,
        "busy_percent": busy,
        **machine.provenance("torch", "uvicorn", "starlette"),
    }
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rounded = f", {options.bits} bits" if options.bits else ""
    known[f"{Path(options.model).name}{rounded}"] = row
    write_text(RESULTS, json.dumps(known, indent=1) + "\n")
    for count, found in rates.items():
        print(f"{count} at a time: {found:.0f} tokens/s, {found / rates[1]:.2f}x")


if __name__ == "__main__":
    main()
