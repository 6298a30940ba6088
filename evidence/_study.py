"""A study: settings x draws x methods, measured; a rule that was fixed before judges it."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.exceptions import ConvergenceWarning

from thresher.core.evidence import Earlier, Outcome
from thresher.core.figure import Figure

from ._plots import lines
from ._statistics import least_ratio, lower

#: What a rule asks, part by part, and by how much each held.
Slacks = Mapping[str, float]
#: Numbers by measure and method.
Measured = dict[str, dict[str, float]]
_log = logging.getLogger("thresher.evidence")


@dataclass(frozen=True)
class Draw:
    """Which problem of a study is drawn; every method is given the same one.

    Parameters
    ----------
    seed : int
        One of the experiment's.
    repeat : int
        Which problem of this seed.
    scale : float
        Of the experiment.
    """

    seed: int
    repeat: int
    scale: float

    @property
    def rng(self) -> np.random.Generator:
        """A generator that starts anew each time, the same in every setting."""
        return np.random.default_rng((self.seed, self.repeat))

    def amount(self, full: int, least: int = 1) -> int:
        """Return `full` times the scale, rounded, and at least `least`."""
        return max(least, round(full * self.scale))


@dataclass(frozen=True)
class Study:
    """What is varied, drawn, compared and measured.

    Parameters
    ----------
    over : tuple of str
        What the settings are, a name per part of their keys: columns of the table.
    settings : mapping of tuple to object
        What `draw` gets, by the key shown. A setting of one part may have it as its key.
    draw : callable
        ``draw(setting, Draw)`` returns a problem. It is called for every setting before the
        next draw, so that what the settings of a draw share can be kept.
    methods : mapping of str to callable
        ``method(problem)`` returns an answer, or None where it does not apply.
    measures : mapping of str to callable
        ``measure(answer, problem)`` returns a number, NaN where it does not apply. Lower is
        better. ``cpu_seconds`` of the method comes for free.
    draws : int, default 1
        Problems per seed and setting at scale 1.
    failed : mapping of exception to answer
        What counts as the answer of a method that raises; any other exception is an error.
    workers : int, default 1
        Processes among which the draws are shared out, each of one thread, so that sums do not
        depend on how many there are.
    """

    over: tuple[str, ...]
    settings: Mapping[Any, Any]
    draw: Callable[[Any, Draw], Any]
    methods: Mapping[str, Callable[[Any], Any]]
    measures: Mapping[str, Callable[[Any, Any], float]] = field(default_factory=dict)
    draws: int = 1
    failed: Mapping[type[Exception], Any] = field(default_factory=dict)
    workers: int = 1

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """The settings' keys, as tuples."""
        return [key if isinstance(key, tuple) else (key,) for key in self.settings]

    def run(self, scale: float, seeds: Sequence[int]) -> Found:
        """Measure every method on every problem."""
        count = max(1, round(self.draws * scale))
        draws = [Draw(seed, repeat, scale) for seed in seeds for repeat in range(count)]
        measured = []
        for done, found in enumerate(self._measure(draws), 1):
            _log.info("draw %d of %d is done", done, len(draws))
            measured.append(found)
        values = {
            name: np.stack([of_draw[name] for of_draw, _ in measured], axis=2)
            for name in measured[0][0]
        }
        noise = [found for _, found in measured if found is not None]
        return Found(self, values, max(noise, default=None))

    def _measure(self, draws: Sequence[Draw]) -> Iterable[tuple[dict[str, np.ndarray], Any]]:
        workers = min(self.workers, len(draws))
        if workers == 1:
            return map(self.measure, draws)
        with parallel_config("loky", inner_max_num_threads=1):
            return Parallel(n_jobs=workers, return_as="generator")(
                delayed(self.measure)(drawn) for drawn in draws
            )

    def measure(self, drawn: Draw) -> tuple[dict[str, np.ndarray], float | None]:
        """Return the measures of one draw, each of shape (settings, methods), and the noise."""
        shape = (len(self.settings), len(self.methods))
        values: dict[str, np.ndarray] = {}
        noise: list[float] = []
        for s, (key, setting) in enumerate(zip(self.keys, self.settings.values(), strict=True)):
            _log.info("%s, seed %d", _label(key), drawn.seed)
            found, noisy = self.observe(self.draw(setting, drawn), drawn)
            noise += [] if noisy is None else [noisy]
            for measure, of_methods in found.items():
                array = values.setdefault(measure, np.full(shape, np.nan))
                for m, name in enumerate(self.methods):
                    array[s, m] = of_methods.get(name, np.nan)
        return values, max(noise, default=None)

    def observe(self, problem: Any, drawn: Draw) -> tuple[Measured, float | None]:
        """Return every measure of every method on one problem, and the noise of timings."""
        found: Measured = {name: {} for name in ("cpu_seconds", *self.measures)}
        for name, method in self.methods.items():
            start = time.process_time()
            answer = self.answer(method, problem)
            if answer is None:
                continue
            found["cpu_seconds"][name] = time.process_time() - start
            for measure, of in self.measures.items():
                found[measure][name] = float(of(answer, problem))
        return found, None

    def answer(self, method: Callable[[Any], Any], problem: Any) -> Any:
        """Return a method's answer, or the one that its declared failure stands for."""
        with warnings.catch_warnings():
            # What did not converge shows in its measures.
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                return method(problem)
            except tuple(self.failed) as error:
                return next(a for kind, a in self.failed.items() if isinstance(error, kind))


@dataclass(frozen=True)
class Found:
    """Measures by setting, method and draw; rules are functions of this alone.

    Parameters
    ----------
    study : Study
        Whose they are.
    values : mapping of str to array of shape (settings, methods, draws)
        By measure; NaN where a method or a measure does not apply.
    noise : float, optional
        Of timings.
    """

    study: Study
    values: Mapping[str, np.ndarray]
    noise: float | None = None

    def of(self, measure: str, method: str) -> np.ndarray:
        """Return a measure, of shape (settings, draws)."""
        return self.values[measure][:, list(self.study.methods).index(method)]

    def mean(self, measure: str, method: str) -> np.ndarray:
        """Return the mean over draws, of shape (settings,)."""
        return self.of(measure, method).mean(axis=1)

    def lead(self, measure: str, ours: str, rival: str) -> np.ndarray:
        """Return how much lower ours is, of shape (settings, draws)."""
        return self.of(measure, rival) - self.of(measure, ours)

    def times(self, measure: str, ours: str, rival: str) -> np.ndarray:
        """Return the rival's over ours, of shape (settings, draws)."""
        return self.of(measure, rival) / self.of(measure, ours)

    def where(self, **parts: Any) -> Found:
        """Return what was found in the settings whose keys have these parts."""
        chosen = [
            index
            for index, key in enumerate(self.study.keys)
            if parts.items() <= dict(zip(self.study.over, key, strict=True)).items()
        ]
        settings = list(self.study.settings.items())
        study = dataclasses.replace(self.study, settings=dict(settings[i] for i in chosen))
        return Found(study, {name: v[chosen] for name, v in self.values.items()}, self.noise)

    def swapped(self, ours: str, rival: str) -> Found:
        """Return what had been found if the rival had been run in our method's place."""
        names = list(self.study.methods)
        values = {name: array.copy() for name, array in self.values.items()}
        for array in values.values():
            array[:, names.index(ours)] = array[:, names.index(rival)]
        return Found(self.study, values, self.noise)

    def table(self) -> list[dict[str, Any]]:
        """Return a row per setting and method: means over draws, and their standard errors."""
        rows = []
        for s, key in enumerate(self.study.keys):
            for m, method in enumerate(self.study.methods):
                cells = {name: values[s, m] for name, values in self.values.items()}
                if all(np.isnan(cell).all() for cell in cells.values()):
                    continue
                row = dict(zip(self.study.over, key, strict=True)) | {"method": method}
                for name, cell in cells.items():
                    spread = cell.std(ddof=1) / math.sqrt(len(cell)) if len(cell) > 1 else np.nan
                    row[name] = float(cell.mean())
                    if name in self.study.measures or name == "seconds":
                        row[f"{name}_error"] = float(spread)
                rows.append(row)
        return rows


@dataclass(frozen=True)
class View:
    """What a reader is shown of a study: series by setting, in a figure and in a sentence.

    Parameters
    ----------
    title, y_title : str
        Of the figure; the sentence begins with the title.
    series : callable
        ``series(found)`` returns arrays of shape (settings,) by name.
    log_y : bool, default False
        Whether the figure's axis is logarithmic.
    """

    title: str
    y_title: str
    series: Callable[[Found], Mapping[str, np.ndarray]]
    log_y: bool = False

    def sentence(self, found: Found) -> str:
        """Return the title and every series: its numbers if they are few, else their range."""
        labels = [_label(key) for key in found.study.keys]
        few = len(labels) <= 6
        said = (
            f"{name} " + ", ".join(_number(v) for v in values if not np.isnan(v))
            if few
            else f"{name} {_number(np.nanmin(values))} to {_number(np.nanmax(values))}"
            for name, values in self.series(found).items()
        )
        over = ", ".join(labels) if few else f"{len(labels)} settings"
        return f"{self.title} ({over}): " + "; ".join(said) + "."

    def figure(self, found: Found) -> Figure:
        """Return a line per series, along the last part of the settings' keys."""
        series: dict[str, list[float]] = {}
        places = list(dict.fromkeys(key[-1] for key in found.study.keys))
        for name, values in self.series(found).items():
            for key, value in zip(found.study.keys, values, strict=True):
                line = ", ".join(map(str, (name, *key[:-1])))
                series.setdefault(line, [math.nan] * len(places))
                series[line][places.index(key[-1])] = float(value)
        return lines(
            places,
            series,
            title=self.title,
            x_title=found.study.over[-1],
            y_title=self.y_title,
            log_y=self.log_y,
        )


def means(measure: str, title: str, y_title: str, exponential: bool = False) -> View:
    """Show the mean of a measure of every method, or the exponential of the mean."""

    def series(found: Found) -> dict[str, np.ndarray]:
        shown = {name: found.mean(measure, name) for name in found.study.methods}
        kept = {name: values for name, values in shown.items() if not np.isnan(values).all()}
        return {name: np.exp(v) if exponential else v for name, v in kept.items()}

    return View(title, y_title, series)


def times(measure: str, ours: str, title: str, log_y: bool = False) -> View:
    """Show how many times lower ours is than every other method, as geometric means."""

    def series(found: Found) -> dict[str, np.ndarray]:
        ratios = {
            name: np.exp(np.log(found.times(measure, ours, name)).mean(axis=1))
            for name in found.study.methods
            if name != ours
        }
        return {name: values for name, values in ratios.items() if not np.isnan(values).all()}

    return View(title, f"times {ours}'s", series, log_y)


@dataclass(frozen=True)
class Judged:
    """A study and the rule that judges it: the ``run`` of an experiment.

    Parameters
    ----------
    study : Study
        What is measured.
    rule : callable
        ``rule(found)`` returns a slack per part. Pure: it reads nothing but what was found.
    view : View
        What a reader is shown.
    against : mapping of str to tuple of str
        The methods that the claim is about, each with the rivals that it is said to beat. Were
        one of them run in its place, the rule would have to say no; a test makes sure.
    note : str
        What the figures do not say: how this differs from the paper, what is not judged.
    say : callable, optional
        ``say(found)`` returns a sentence on what else was found.
    reason : str, optional
        Why the claim did not hold, known or suspected; shown only if it did not.
    """

    study: Study
    rule: Callable[[Found], Slacks]
    view: View
    against: Mapping[str, tuple[str, ...]]
    note: str
    say: Callable[[Found], str] | None = None
    reason: str = ""

    def __call__(self, scale: float, seeds: Sequence[int]) -> Outcome:
        """Run the study and judge what was found."""
        return self.judge(self.study.run(scale, seeds))

    def judge(self, found: Found) -> Outcome:
        """Return the outcome; every number of its summary is read off what was found."""
        slacks = self.rule(found)
        outcome = Outcome.judged(
            slacks, "", found.table(), self.view.figure(found), noise=found.noise
        )
        also = [self.say(found)] if self.say else []
        sentences = [self.view.sentence(found), *also, self.note]
        if next(iter(found.values.values())).shape[2] < 2:
            sentences.append("One draw shows no noise, so that nothing is above it.")
        elif not outcome.reproduced:
            sentences.append(_failed(slacks))
            sentences += [f"Reason: {self.reason}"] if self.reason else []
        if found.noise is not None and found.noise > 0.1:
            sentences.append(
                f"The machine was busy: two timings of one function lay {found.noise:.0%} apart."
            )
        return dataclasses.replace(outcome, summary=" ".join(sentences))


#: From what was found to the slack of every part.
Rule = Callable[[Found], Slacks]


def ahead(measure: str, ours: str, *rivals: str) -> Rule:
    """Make the rule that ours is lower in every setting, by more than two standard errors."""

    def rule(found: Found) -> dict[str, float]:
        return {
            f"{_label(key)}: {measure} below {rival}": float(slack)
            for rival in rivals
            for key, slack in zip(
                found.study.keys, lower(found.lead(measure, ours, rival)), strict=True
            )
        }

    return rule


def ahead_overall(measure: str, ours: str, *rivals: str) -> Rule:
    """Make the rule that ours is lower on average over the settings, by more than the noise."""

    def rule(found: Found) -> dict[str, float]:
        leads = {rival: found.lead(measure, ours, rival).mean(axis=0) for rival in rivals}
        return {f"{measure} below {rival}, overall": float(lower(v)) for rival, v in leads.items()}

    return rule


def times_ahead(measure: str, ours: str, *rivals: str, factor: float = 1.0) -> Rule:
    """Make the rule that a rival's is over `factor` times ours in every setting, by ratios."""

    def rule(found: Found) -> dict[str, float]:
        least = {rival: least_ratio(found.times(measure, ours, rival)) for rival in rivals}
        return {
            f"{_label(key)}: {rival}'s {measure} over {factor:g} times, less one": float(
                ratio / factor - 1
            )
            for rival, ratios in least.items()
            for key, ratio in zip(found.study.keys, ratios, strict=True)
        }

    return rule


def every(*rules: Rule) -> Rule:
    """Make the rule that all of these hold, whose parts must have names of their own."""

    def rule(found: Found) -> Slacks:
        slacks: dict[str, float] = {}
        for each in rules:
            parts = each(found)
            if shared := slacks.keys() & parts.keys():
                raise ValueError(f"two rules give their parts one name: {sorted(shared)}")
            slacks |= parts
        return slacks

    return rule


def ahead_each(measure: str, pairs: Mapping[str, str]) -> Rule:
    """Make the rule that each method is ahead of the rival that it is paired with."""

    def rule(found: Found) -> dict[str, float]:
        return {
            f"{ours}, {part}": slack
            for ours, rival in pairs.items()
            for part, slack in ahead(measure, ours, rival)(found).items()
        }

    return rule


def reported(*names: str) -> dict[str, Callable[[Any, Any], float]]:
    """Return the measures that methods' answers, which are mappings, report; NaN where missing."""
    return {name: lambda answer, _, name=name: answer.get(name, math.nan) for name in names}


def in_means(reproduced: bool, margin: float) -> Earlier:
    """Return the record of the same rule judged by means, whatever the noise between draws."""
    why = "the noise between draws is counted, as two standard errors"
    return Earlier("the same by means alone", reproduced, margin, why)


def by_one_error(reproduced: bool, margin: float) -> Earlier:
    """Return the record of the same rule judged by one standard error between seeds."""
    why = "noise passes one standard error in a fifth of all runs; two are asked for"
    return Earlier("the same by one standard error", reproduced, margin, why)


def grid(*parts: Sequence[Any]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return every combination as a setting that is its own key."""
    keys: list[tuple[Any, ...]] = [()]
    for part in parts:
        keys = [(*key, value) for key in keys for value in part]
    return {key: key for key in keys}


def _failed(slacks: Slacks) -> str:
    """Say how many parts of a rule did not hold, and which is the furthest from it."""
    failed = {part: slack for part, slack in slacks.items() if not slack > 0}
    worst = min(failed, key=lambda part: failed[part])
    count = f"{len(failed)} of {len(slacks)} parts of the rule did"
    return f"{count} not hold; by the most: {worst} ({failed[worst]:.3g})."


def _label(key: tuple[Any, ...]) -> str:
    return " ".join(map(str, key))


def _number(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.3g}"
