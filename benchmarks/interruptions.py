"""Kill `thresher prune` at every moment, run it again, and run two at once; count what came of it.

    python -m benchmarks.interruptions [--kills 1000] [--pairs 50] [--seed 0]

A run is killed (SIGKILL) right before or after one of the file operations that Python makes on the
output's parent folder, or at a random time; half of the runs are killed twice in a row. Then the
same command runs to its end: the folder must hold the same bytes as one that nobody stopped, and
nothing else may be left beside it. Of two runs that begin together with other densities, one must
be refused by name, and the model of the other must be whole. Processes are forked from one that
has imported everything, so that a run takes a second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # forks of a process with threads would wait for them

from thresher.cli import main as command

from .machine import provenance

RESULTS = Path(__file__).parent / "results" / "interruptions.json"
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        prepare(place)
        found = {
            "kills": kills(place, options.kills, random.Random(options.seed)),
            "pairs": pairs(place, options.pairs),
            "seed": options.seed,
            **provenance("thresher", "torch", "transformers"),
        }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["kills"]["wrong"] or found["pairs"]["wrong"] else 0)


def prepare(place: Path) -> None:
    """Write a small model and a text, and import all that a run imports."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(place / "model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place / "model")
    (place / "text").write_text("All that is kept is kept for good. " * 60)
    if ended(child(partial(prune, place, place / "whole" / "out"))):
        raise RuntimeError("the command fails where nobody stops it")


def prune(place: Path, out: Path, density: float = 0.5) -> str:
    """Run the command; return what it printed on standard error."""
    arguments = [
        *("prune", str(place / "model"), "--out", str(out), "--calibration", str(place / "text")),
        *("--windows", "2", "--length", "32", "--method", "wanda", "--density", str(density)),
        "--curve",
    ]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        command(arguments, standalone_mode=True)
    return errors.getvalue()


def child(work: Callable[[], object]) -> int:
    """Start a forked process; it exits with 1 where `work` fails."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """Wait for a process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dying(place: Path, out: Path, at: int, seconds: float | None) -> Callable[[], object]:
    """Return a run that is killed at its `at`-th file operation, or after a time."""

    def work() -> None:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        count = 0

        def watch(event: str, arguments: tuple) -> None:
            nonlocal count
            if event in EVENTS and str(out.parent) in str(arguments[0]):
                count += 1
                if count == at and seconds is None:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        prune(place, out)

    return work


def kills(place: Path, wanted: int, chance: random.Random) -> dict[str, object]:
    """Kill and go on until so many runs were killed."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    at = 1
    while counts["killed"] < wanted:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            out = Path(folder) / "out"
            how = f"operation {at}" if counts["runs"] % 4 else "a time"
            for _ in range(1 + counts["runs"] % 2):
                seconds = chance.uniform(0.05, 1.5) if how == "a time" else None
                code = ended(child(dying(place, out, at, seconds)))
                counts["killed"] += code == -signal.SIGKILL
                counts["ended before"] += code == 0
            if code == 0 and how != "a time":
                at = 0  # there is no such operation any more: from the beginning
            at += 1
            counts["runs"] += 1
            if fault := outcome(place, out):
                wrong.append(f"{how}: {fault}")
        if counts["runs"] % 50 == 0:
            print(dict(counts), wrong[-3:], file=sys.stderr, flush=True)
    return {**counts, "same bytes, nothing left": counts["runs"] - len(wrong), "wrong": wrong}


def outcome(place: Path, out: Path) -> str:
    """Run the command to its end and say what is wrong with what is there, if anything."""
    code = ended(child(partial(prune, place, out)))
    if code:
        return f"the same command again ended with {code}"
    if os.listdir(out.parent) != ["out"]:
        return f"left behind: {sorted(os.listdir(out.parent))}"
    return difference(place / "whole" / "out", out)


def difference(whole: Path, out: Path) -> str:
    """Return the first file of two folders that differs, but for times in the record."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (whole, out)]
    if names[0] != names[1]:
        return f"holds {names[1]}"
    for name in names[0]:
        held = [_content(folder / name) for folder in (whole, out)]
        if held[0] != held[1]:
            return f"{name} differs"
    return ""


def _content(file: Path) -> object:
    if file.name == "report.html":
        return len(file.read_bytes()) > 100_000
    if file.name != "thresher.json":
        return file.read_bytes()
    record = json.loads(file.read_text())
    for key in ("timings", "peak_bytes", "fingerprint"):
        record.pop(key)
    for layer in record["layers"]:
        layer.pop("seconds")
    return record


def pairs(place: Path, wanted: int) -> dict[str, object]:
    """Start two runs into one folder at once, again and again."""
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(wanted):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            out = Path(folder) / "out"
            delay = 0.02 * (number % 10)
            first = child(partial(prune, place, out))
            time.sleep(delay)
            second = child(partial(prune, place, out, 0.6))
            codes = ended(first), ended(second)
            if sorted(codes) != [0, 1]:
                wrong.append(f"pair {number} ended with {codes}")
            elif os.listdir(folder) != ["out"]:
                wrong.append(f"pair {number} left {os.listdir(folder)}")
            elif codes[0] == 0 and (fault := difference(place / "whole" / "out", out)):
                wrong.append(f"pair {number}: {fault}")
            else:
                counts["one refused, the other whole"] += 1
    return {"pairs": wanted, **counts, "wrong": wrong}


if __name__ == "__main__":
    main()
