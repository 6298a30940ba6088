"""Coordinate and group descent: compiled for quadratic losses, inside Newton steps for others."""

from __future__ import annotations

__all__ = ["CoordinateDescent", "Descent", "GroupDescent"]

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...core.options import check_whole
from .. import _solve
from ..centring import Centring
from ..design import thread_count
from ..penalties import Grouped, Penalty, Rows, Separable
from ..problem import Problem, Solution, Trail
from .base import Need, Solver
from .criterion import Criterion
from .duality import gradient_rounding
from .newton import minimise_by_newton
from .point import Fit, Point
from .quadratic import Quadratic, block_curvature


@dataclass(frozen=True)
class Descent(Solver):
    """What coordinate and group descent share.

    Parameters
    ----------
    working_set : int, default 100
        Size of the first working set, in coefficients or groups; it grows to twice the
        support.
    """

    working_set: int = 100

    def check_options(self) -> None:
        """Raise OptionError if an option is out of range."""
        super().check_options()
        check_whole("working_set", self.working_set)

    @abstractmethod
    def blocks(self, penalty: Penalty) -> Separable:
        """Return the separable penalty of the block magnitudes."""

    @abstractmethod
    def kernel(
        self,
        quadratic: Quadratic,
        penalty: Penalty,
        coef: np.ndarray,
        trail: Trail | None,
        options: _solve.Options,
    ) -> tuple[float, int, int, bool]:
        """Run the compiled descent; `coef` is changed in place."""

    def descend(
        self,
        quadratic: Quadratic,
        penalty: Penalty,
        coef: np.ndarray,
        tolerance: float,
        gap: bool = False,
        rounds: int = 100,
        trail: Trail | None = None,
        verify: bool = True,
    ) -> tuple[float, int, bool]:
        """Minimise a quadratic plus `penalty` in place.

        Returns the criterion, the rounds of working sets, and whether the absolute
        `tolerance` was met. Without `verify` all blocks are passed once and the active ones
        until they settle, for callers that judge the result themselves: the criterion is
        then infinite.
        """
        options = _solve.Options(
            tolerance=float(tolerance),
            max_iterations=rounds,
            max_epochs=10_000,
            gap=gap,
            verify=verify,
            start_size=self.working_set,
            threads=thread_count(),
        )
        criterion, done, _, converged = self.kernel(quadratic, penalty, coef, trail, options)
        return criterion, done, converged

    def has_gap(self, problem: Problem) -> bool:
        """Tell whether the kernels know the duality gap.

        That needs an L1-like penalty of every block, and one well above the rounding of the
        gradient: a dual point is feasible only to that.
        """
        penalty = problem.penalty
        radial = self.blocks(penalty)
        if not radial.is_l1_like or getattr(penalty, "l1", 0.0) != 0:
            return False
        return float(np.min(radial.strength)) > gradient_rounding(problem)

    def run(self, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Solution:
        """Descend from the given start."""
        if not problem.datafit.quadratic:
            return minimise_by_newton(self, problem, coef, intercept)
        weight = None if problem.uniform else problem.weight
        # Centred, since the duality gap is no more exact than the square of the largest target.
        target = problem.y - problem.best_constant
        quadratic = Quadratic(problem.design, target, weight, *problem.moments)
        gap = self.has_gap(problem)
        if gap:
            scale = problem.datafit.value(problem.y, problem.null_prediction, problem.weight)
        else:
            scale = float(np.max(np.abs(problem.null_gradient), initial=0.0))
        # No criterion falls below the rounding of its own terms.
        epsilon = float(np.finfo(problem.design.dtype).eps)
        rounding = epsilon * float(np.max(np.abs(problem.y), initial=0.0))
        floor = 16 * rounding**2 if gap else rounding * float(np.sqrt(problem.moments[1].max()))
        tolerance = max(self.tol * scale, 32 * epsilon * scale, floor)
        criterion, rounds, converged = self.descend(
            quadratic, problem.penalty, coef, tolerance, gap, self.max_iter, problem.trail
        )
        found = Solution(
            coef=coef,
            intercept=_intercept(problem, coef),
            criterion=criterion / scale if scale > 0 else 0.0,
            kind="duality gap" if gap else "optimality violation",
            n_iter=rounds,
            converged=converged,
        )
        rule = Criterion.of(problem, max(self.tol, 32 * epsilon))
        if gap or rule.gap is None or not converged:
            return found
        return self._proved(rule, quadratic, found, tolerance)

    def _proved(
        self, rule: Criterion, quadratic: Quadratic, found: Solution, tolerance: float
    ) -> Solution:
        """Descend on until the gap that the kernels do not know meets the tolerance as well.

        They stop on the violation, each time a tenth of the last; where rounding ends that, the
        solution is returned as it was found.
        """
        problem, coef, rounds = rule.problem, found.coef.copy(), found.n_iter
        for _ in range(6):
            intercept = _intercept(problem, coef)
            point = Point(problem, coef, Fit(problem, problem.predict(coef, intercept), intercept))
            judged = rule.judge(point, np.inf)
            if judged.converged:
                return Solution(coef, intercept, judged.criterion, judged.kind, rounds, True)
            tolerance /= 10
            _, more, converged = self.descend(
                quadratic, problem.penalty, coef, tolerance, False, self.max_iter
            )
            rounds += more
            if not converged:
                break
        return found


def _intercept(problem: Problem, coef: np.ndarray) -> np.ndarray:
    return np.asarray(Centring(problem.moments[0], problem.best_constant).intercept(coef))


@dataclass(frozen=True)
class CoordinateDescent(Descent):
    """Cyclic coordinate descent for separable penalties, convex or not.

    Working sets, Anderson acceleration, the duality gap as stopping rule where it is known, and
    for L1-like penalties gap-safe screening. Losses that are not quadratic are minimised by
    proximal Newton steps on the working set.

    Under a concave penalty the end is a stationary point. Where the slope at zero is infinite (L0,
    Lq), moreover, no coefficient leaves zero by a step on the quadratic model of the loss; that
    model is an upper bound, so that for losses other than squares a long move still may pay.

    References
    ----------
    Bertrand, Klopfenstein, Bannier, Gidel and Massias, Beyond L1: faster and better sparse
    models with skglm (2022); Bertrand and Massias, Anderson acceleration of coordinate
    descent (2021); Ndiaye, Fercoq, Gramfort and Salmon, Gap safe screening rules for
    sparsity enforcing penalties (2017).
    """

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.penalty, Separable),
            "the penalty is not separable; use GroupDescent or ProximalGradient",
        ),
        Need(
            lambda _, problem: problem.penalty.kind is not None,
            "the penalty has no compiled prox; use ProximalGradient",
        ),
        Need(
            lambda _, problem: not problem.datafit.multiple_outputs,
            "coefficients of several outputs are coupled; use GroupDescent with Rows",
        ),
    )

    def blocks(self, penalty: Penalty) -> Separable:
        """Return the penalty itself."""
        assert isinstance(penalty, Separable)
        return penalty

    def kernel(
        self,
        quadratic: Quadratic,
        penalty: Penalty,
        coef: np.ndarray,
        trail: Trail | None,
        options: _solve.Options,
    ) -> tuple[float, int, int, bool]:
        """Run coordinate descent."""
        design = quadratic.design
        radial = self.blocks(penalty).given(design.dtype, design.shape[1])
        return _solve.coordinates(design.given, quadratic.given(), radial, coef, trail, options)


@dataclass(frozen=True)
class GroupDescent(Descent):
    """Cyclic descent over groups of coefficients, or over the rows of several outputs.

    Takes :class:`~thresher.solve.penalties.blocks.Grouped` penalties, and with several outputs
    :class:`~thresher.solve.penalties.blocks.Rows`. Each block takes a proximal gradient step with
    its own curvature; otherwise as :class:`CoordinateDescent`.
    """

    needs: ClassVar = (
        Need(
            lambda _, problem: isinstance(problem.penalty, Grouped | Rows),
            "the penalty has no groups; use CoordinateDescent or ProximalGradient",
        ),
        Need(
            lambda _, problem: problem.penalty.radial.kind is not None,
            "the penalty has no compiled prox; use ProximalGradient",
        ),
        Need(
            lambda _, problem: not (isinstance(problem.penalty, Rows) and problem.penalty.l1),
            "Rows with an l1 term is not compiled; use ProximalGradient",
        ),
        Need(
            lambda _, problem: (
                problem.datafit.quadratic
                or np.all(np.isfinite(np.asarray(problem.penalty.radial.slope_at_zero)))
            ),
            "a penalty of infinite slope at zero has no Newton steps for groups; use "
            "ProximalGradient",
        ),
    )

    def blocks(self, penalty: Penalty) -> Separable:
        """Return the penalty of the norms."""
        assert isinstance(penalty, Grouped | Rows)
        return penalty.radial

    def kernel(
        self,
        quadratic: Quadratic,
        penalty: Penalty,
        coef: np.ndarray,
        trail: Trail | None,
        options: _solve.Options,
    ) -> tuple[float, int, int, bool]:
        """Run group descent."""
        design = quadratic.design
        if isinstance(penalty, Grouped):
            curvature = block_curvature(quadratic, penalty)
            radial = penalty.radial.given(design.dtype, len(curvature))
            groups = _solve.Groups(*penalty.members, penalty.l1)
            given = quadratic.given(curvature)
            return _solve.groups(design.given, given, radial, groups, coef, options)
        radial = self.blocks(penalty).given(design.dtype, design.shape[1])
        return _solve.tasks(design.given, quadratic.given(), radial, coef, options)
