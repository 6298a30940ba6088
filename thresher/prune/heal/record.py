"""What a healing run did, as data."""

from __future__ import annotations

__all__ = ["HealRecord"]

import dataclasses
from dataclasses import dataclass, field

from ..record import PruneRecord


@dataclass
class HealRecord:
    """A healing run; in the record of a pruned model it is the entry ``healing``.

    Parameters
    ----------
    teacher : str
        The dense model that was imitated.
    text : str
        What both have read.
    minutes : float
        Time that was given.
    seconds : float
        Time that was used, loading and writing left out.
    steps, tokens : int
        Steps of training, without the trials of learning rates, and tokens read in them.
    windows, held_out, length : int
        Windows to train on and to judge by, and their tokens.
    rate : float
        Highest learning rate.
    loss_before, loss_after : float
        Mean divergence from the teacher on the held-out windows, in nats, of the weights as they
        are stored.
    best_step : int
        After how many steps the weights that are kept were made; 0 if nothing was better than
        the start.
    seed : int
        Of the order of windows.
    precision : str
        Of passes.
    hidden : list of str
        Blocks whose hidden states were compared.
    probes, checks : list of dict
        Learning rates that were tried, and evaluations on the way.
    fingerprint : str
        Of the models, text and options of a run on folders.
    """

    teacher: str
    text: str
    minutes: float
    seconds: float
    steps: int
    tokens: int
    windows: int
    held_out: int
    length: int
    rate: float
    loss_before: float
    loss_after: float
    best_step: int
    seed: int
    precision: str
    hidden: list[str] = field(default_factory=list)
    probes: list[dict[str, float]] = field(default_factory=list)
    checks: list[dict[str, float]] = field(default_factory=list)
    fingerprint: str = ""

    def added_to(self, record: PruneRecord) -> PruneRecord:
        """Return the record of a pruned model with this run; figures of earlier weights go.

        Parameters
        ----------
        record : PruneRecord
            How the model was pruned.
        """
        sizes = {k: v for k, v in record.evaluation.items() if k.endswith("_bytes")}
        healing = dataclasses.asdict(self)
        return dataclasses.replace(record, evaluation=sizes, tasks={}, speed={}, healing=healing)

    def __repr__(self) -> str:
        return (
            f"HealRecord({self.steps} steps in {self.seconds:.0f} s, divergence "
            f"{self.loss_before:.4f} -> {self.loss_after:.4f} nats)"
        )
