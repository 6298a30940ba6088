"""Accuracy on multiple-choice questions: files of one's own, and tasks by name."""

from __future__ import annotations

__all__ = ["Question", "check_tasks", "evaluate_tasks", "listed_tasks", "read_questions"]

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import DataError
from ..core.files import json_lines
from ..core.progress import progress_bar
from ..parts.calibration import read_text
from ..parts.limits import positions
from .harness import check_named, evaluate_named
from .likelihood import log_likelihoods

_COLUMNS = ("question", "choices", "answer")
#: Of files that lm-evaluation-harness reads.
_FOREIGN = (".yaml", ".yml")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    Parameters
    ----------
    question : str
        What the model reads first; it may be empty.
    choices : sequence of str
        What it may go on with, after a space.
    answer : int
        Index of the right choice, from 0.
    """

    question: str
    choices: Sequence[str]
    answer: int


def evaluate_tasks(
    model: nn.Module,
    tokenizer: Any,
    tasks: str | Path | Sequence[str | Path],
    *,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """Return how often a language model prefers the right choice of each question.

    A choice's score is the log-likelihood of its tokens after the question and a space. As in the
    ``multiple_choice`` tasks of lm-evaluation-harness, accuracy goes by the score itself, and
    normalised accuracy by the score divided by the number of characters of the choice; of equal
    scores the first counts. Questions that are longer than the model's positions lose their
    beginning, with a warning.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers, dense, pruned or packed.
    tokenizer : transformers tokenizer
        Its special tokens that begin a text, such as BOS, are put before the question.
    tasks : str, Path or sequence of them
        Files of questions, see :func:`read_questions`; names of lm-evaluation-harness's tasks and
        files of such tasks (YAML), where ``thresher[tasks]`` is installed. A string may hold
        several, see :func:`listed_tasks`.
    progress : bool, default True
        Show a progress bar on a terminal.

    Returns
    -------
    dict of str to dict
        By task (of a file the name without its ending): ``accuracy`` and ``accuracy_norm``, shares
        in [0, 1], and the number of ``questions``. Tasks by name have those that they measure, and
        other measures under their own names.

    Raises
    ------
    DataError
        If a file cannot be used, naming the line.
    OptionError
        If there is no such task.
    MissingPackageError
        If a name is no file, and lm-evaluation-harness is not installed.

    References
    ----------
    Gao et al., The Language Model Evaluation Harness (2021-2026), ``multiple_choice``, ``acc`` and
    ``acc_norm``.
    """
    questions, names = _opened(tasks)
    found = {}
    for file, held in questions.items():
        found[file.stem] = _accuracies(model, tokenizer, file, held, progress)
    return found | (evaluate_named(model, tokenizer, names) if names else {})


def check_tasks(tasks: str | Path | Sequence[str | Path]) -> None:
    """Raise what :func:`evaluate_tasks` would, as far as it can be told without a model.

    Parameters
    ----------
    tasks : str, Path or sequence of them
        As for :func:`evaluate_tasks`.
    """
    _opened(tasks)


def listed_tasks(tasks: str | Path | Sequence[str | Path]) -> list[str]:
    """Return files and names of tasks one by one.

    Parameters
    ----------
    tasks : str, Path or sequence of them
        A string is parted at its commas, but for those in the path of a file that is there.
    """
    if not isinstance(tasks, str | Path):
        return [str(each) for each in tasks]
    parts = str(tasks).split(",")
    found: list[str] = []
    while parts:
        joined = ((many, ",".join(parts[:many]).strip()) for many in range(len(parts), 0, -1))
        # Unlike Path.is_file, this takes a text too long for a name.
        many, text = next((x for x in joined if os.path.isfile(x[1])), (1, parts[0].strip()))
        found += [text] if text else []
        del parts[:many]
    return found


def _opened(
    tasks: str | Path | Sequence[str | Path],
) -> tuple[dict[Path, list[Question]], list[str]]:
    """Return the questions of files, and names that lm-evaluation-harness knows."""
    # A fault of the last file would cost the work on the first.
    files, names = _sorted_out(tasks)
    questions = {file: read_questions(file) for file in files}
    if names:
        check_named(names)
    return questions, names


def _sorted_out(tasks: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return files of questions, and what lm-evaluation-harness knows."""
    files, names = [], []
    for text in listed_tasks(tasks):
        file = Path(text)
        if file.suffix not in _FOREIGN and (file.is_file() or file.suffix or len(file.parts) > 1):
            files.append(file)
        else:
            names.append(text)
    if not files and not names:
        raise DataError("no task is named; pass a file of questions, or names of tasks")
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise DataError(f"two files of questions are called {stem!r}; rename one")
    return files, names


def read_questions(file: str | Path) -> list[Question]:
    """Read a file of multiple-choice questions.

    Parameters
    ----------
    file : str or Path
        UTF-8, one JSON object a line, such as ``{"question": "The capital of France is",
        "choices": ["Paris", "Rome"], "answer": 0}``. Other keys are left alone.

    Returns
    -------
    list of Question
        At least one.

    Raises
    ------
    DataError
        Naming the line, what it has and what it lacks.
    """
    return [
        _question(row, f"line {number} of {str(file)!r}")
        for number, row in json_lines(read_text(file), file)
    ]


def _question(row: dict[str, Any], where: str) -> Question:
    missing = [name for name in _COLUMNS if name not in row]
    if missing:
        raise DataError(
            f"{where} has no {missing[0]!r}: it has {', '.join(map(repr, row)) or 'nothing'}, and "
            "a question has 'question', 'choices' and 'answer' (the index of the right choice)"
        )
    question, choices, answer = (row[name] for name in _COLUMNS)
    if not isinstance(question, str):
        raise DataError(f"{where}: 'question' is {question!r}, expected text")
    texts = isinstance(choices, list) and all(isinstance(x, str) and x for x in choices)
    if not texts or len(choices) < 2:
        raise DataError(f"{where}: 'choices' is {choices!r}, expected a list of two texts or more")
    if type(answer) is not int:
        raise DataError(
            f"{where}: 'answer' is {answer!r}, expected the index of the right choice, from 0"
        )
    if not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: 'answer' is {answer}, and there are {len(choices)} choices; the index of "
            f"the right one is from 0 to {len(choices) - 1}"
        )
    return Question(question, choices, answer)


def _accuracies(
    model: nn.Module, tokenizer: Any, file: Path, questions: Sequence[Question], progress: bool
) -> dict[str, float]:
    pairs = _pairs(model, tokenizer, file, questions)
    with progress_bar(len(pairs), progress) as advance:
        scores = iter(log_likelihoods(model, pairs, advance))
    plain = normalised = 0
    for question in questions:
        # Each choice takes the next score.
        held = [(next(scores), len(choice)) for choice in question.choices]
        plain += question.answer == _best([score for score, _ in held])
        normalised += question.answer == _best([score / length for score, length in held])
    many = len(questions)
    return {"accuracy": plain / many, "accuracy_norm": normalised / many, "questions": many}


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _pairs(
    model: nn.Module, tokenizer: Any, file: Path, questions: Sequence[Question]
) -> list[tuple[list[int], list[int]]]:
    """Return context and continuation of every choice, as tokens that the model has room for."""
    # The last token is only predicted, and takes no position.
    room = (positions(model) or math.inf) + 1
    first = _first_tokens(tokenizer)
    found, cut = [], 0
    for question in questions:
        for choice in question.choices:
            context, continuation = _tokens(tokenizer, first, question.question, choice)
            if len(continuation) >= room:
                raise DataError(
                    f"a choice in {str(file)!r} has {len(continuation)} tokens, more than the "
                    f"model has positions: {choice[:60]!r}"
                )
            over = len(context) + len(continuation) - room
            if over > 0:
                cut, context = cut + 1, context[int(over) :]
            found.append((context, continuation))
    if cut:
        warnings.warn(
            f"{cut} of {len(found)} questions with a choice in {str(file)!r} are longer than the "
            f"{room - 1:.0f} positions of {type(model).__name__}, and lose their beginning",
            stacklevel=4,
        )
    return found


def _tokens(
    tokenizer: Any, first: list[int], question: str, choice: str
) -> tuple[list[int], list[int]]:
    """Return context and continuation as tokens, told apart in the tokens of both together."""
    if not question.strip():
        return _start(tokenizer, first), _ids(tokenizer, f"{question} {choice}")
    # Spaces at the end belong to the tokens of the word that follows.
    stem = question.rstrip()
    context = _ids(tokenizer, stem)
    whole = _ids(tokenizer, f"{question} {choice}")
    parted = min(len(context), len(whole) - 1)
    begun = bool(first) and whole[: len(first)] == first
    return ([] if begun else first) + whole[:parted], whole[parted:]


def _start(tokenizer: Any, first: list[int]) -> list[int]:
    """Return what goes before a choice that has no question."""
    if first:
        return first
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [token]
    raise DataError(
        "a question is empty, and the tokenizer has no token that begins or ends a text; give "
        "every question at least one word"
    )


def _first_tokens(tokenizer: Any) -> list[int]:
    """Return the special tokens that a tokenizer puts before a text."""
    plain = _ids(tokenizer, "a")
    whole = list(tokenizer("a")["input_ids"])
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next((i for i in starts if whole[i : i + len(plain)] == plain), 0)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
