"""The token windows that both sides of the comparison calibrate and evaluate on."""

from pathlib import Path

import numpy as np

from thresher.assets import smollm2, state_of_the_union
from thresher.assets.fetch import cached
from thresher.assets.texts import gutenberg

LENGTH = 1024
CALIBRATION_WINDOWS = 64
EVALUATION_WINDOWS = 20
EMMA_WINDOWS = 8
OWN_WINDOWS = 16


def tokens() -> Path:
    """Return the folder of ``calibration.npy`` and ``evaluation.npy``, written once.

    Calibration: 64 windows of the State of the Union addresses 1950-1990; evaluation: 20
    windows of those from 2014 on. Each text is tokenised whole and cut into consecutive
    windows of 1024 tokens (int64 arrays of shape ``(windows, 1024)``), without special tokens.
    """
    return cached("quality-tokens-1", _write)


def emma() -> np.ndarray:
    """Return the first 8 windows of *Emma*, cut as the others: a text of another genre."""
    return np.load(cached("quality-emma-1", _write_emma) / "emma.npy")


def own() -> np.ndarray:
    """Return 16 windows of text that the dense model wrote itself, sampled at temperature 1."""
    return np.load(cached("quality-own-1", _write_own) / "own.npy")


def _write_own(folder: Path) -> None:
    import thresher as th

    engine, texts, seed = th.Engine(smollm2()), [], 0
    ids: list[int] = []
    while len(ids) < OWN_WINDOWS * LENGTH:
        start = "<|im_start|>" if seed % 2 else "The"
        texts.append(engine.generate(start, max_new_tokens=LENGTH - 1, temperature=1.0, seed=seed))
        ids = engine.tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]
        seed += 1
    cut = np.array(ids[: OWN_WINDOWS * LENGTH], dtype=np.int64)
    np.save(folder / "own.npy", cut.reshape(OWN_WINDOWS, LENGTH))


def _write_emma(folder: Path) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(smollm2())(gutenberg("emma"), add_special_tokens=False)
    cut = np.array(ids["input_ids"][: EMMA_WINDOWS * LENGTH], dtype=np.int64)
    np.save(folder / "emma.npy", cut.reshape(EMMA_WINDOWS, LENGTH))


def _write(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    for name, years, windows in (
        ("calibration", (1950, 1990), CALIBRATION_WINDOWS),
        ("evaluation", (2014, 2021), EVALUATION_WINDOWS),
    ):
        ids = tokenizer(state_of_the_union(*years), add_special_tokens=False)["input_ids"]
        cut = np.array(ids[: windows * LENGTH], dtype=np.int64).reshape(windows, LENGTH)
        np.save(folder / f"{name}.npy", cut)


if __name__ == "__main__":
    print(tokens())
