"""Plots of paths and cross-validation curves, as scikit-learn displays."""

from __future__ import annotations

__all__ = ["CVDisplay", "PathDisplay"]

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from ...core.errors import OptionError
from ...core.options import check_whole
from ...solve.path import Path
from ..greedy.lars import LARS


class PathDisplay:
    """Coefficients against the strength of the penalty.

    Parameters
    ----------
    path : Path
        What ``estimator.path(X, y)`` returned.
    feature_names : sequence of str, optional
        Names for the legend, one per feature.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    """

    def __init__(self, path: Path, feature_names: Any = None) -> None:
        self.path = path
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, **options: Any
    ) -> Any:
        """Compute the path of an estimator and draw it.

        Parameters
        ----------
        estimator : PenalizedModel or LARS
            Fitted or not; it is not changed.
        X, y : arrays
            Training data.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Passed to ``estimator.path``, or to the fit of LARS; `labels` and `output` to
            :meth:`plot`.

        Returns
        -------
        PathDisplay
            The display, drawn.

        Raises
        ------
        OptionError
            If the estimator has no path.
        """
        names = list(X.columns) if hasattr(X, "columns") else None
        drawn = {name: options.pop(name) for name in ("labels", "output") if name in options}
        if isinstance(estimator, LARS):
            path = clone(estimator).fit(X, y, **options).path_
        elif hasattr(estimator, "path"):
            path = estimator.path(X, y, **options)
        else:
            raise OptionError(
                f"{type(estimator).__name__} has no path to draw; Lasso, LARS and other "
                "estimators with a path do"
            )
        return cls(path, names).plot(ax=ax, **drawn)

    def plot(self, ax: Any = None, *, labels: int = 10, output: int | None = None) -> PathDisplay:
        """Draw the path.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        labels : int, default 10
            How many features are named in the legend, those whose coefficients grow largest
            anywhere on the path.
        output : int, optional
            Which of several outputs is drawn; by default the Euclidean norm of every feature's
            coefficients over all of them.

        Raises
        ------
        OptionError
            If there is no such output, `labels` is not a whole number of at least 0, or there is
            not one name per feature.

        Returns
        -------
        PathDisplay
            Itself.
        """
        check_matplotlib_support("PathDisplay.plot")
        import matplotlib.pyplot as plt

        check_whole("labels", labels, least=0)
        coefs, meaning = self._of_output(output)
        names = self._names(coefs.shape[1])
        if ax is None:
            _, ax = plt.subplots()
        used = np.flatnonzero(np.any(coefs != 0, axis=0))
        peaks = np.abs(coefs[:, used]).max(axis=0)
        largest = set(used[np.argsort(-peaks, kind="stable")][:labels])
        marker = "o" if len(self.path.alphas) == 1 else None  # a line of one point is not seen
        for j in used:
            style = {"label": names[j]} if j in largest else {"color": "0.7", "linewidth": 0.8}
            ax.plot(self.path.alphas, coefs[:, j], marker=marker, **style)
        _alpha_axis(ax, self.path.alphas)
        ax.set_ylabel(meaning)
        if largest:
            ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _names(self, count: int) -> list:
        """Return the name of every feature."""
        if self.feature_names is None:
            return [f"x{j}" for j in range(count)]
        names = list(self.feature_names)
        if len(names) != count:
            raise OptionError(f"feature_names holds {len(names)} names for {count} features")
        return names

    def _of_output(self, output: int | None) -> tuple[np.ndarray, str]:
        """Return what is drawn, of shape (n_alphas, p), and what it is."""
        coefs = self.path.coefs
        outputs = coefs.shape[2] if coefs.ndim == 3 else 1
        if output is not None and output not in range(outputs):
            raise OptionError(f"there is no output {output!r}; the path has {outputs}, from 0 on")
        if coefs.ndim == 2:
            return coefs, "coefficient"
        if output is None:
            return np.linalg.norm(coefs, axis=2), f"norm of the coefficients of {outputs} outputs"
        return coefs[..., output], f"coefficient of output {output}"


class CVDisplay:
    """Held-out loss against the strength of the penalty.

    Parameters
    ----------
    alphas : array of shape (n_alphas,)
        Strengths.
    losses : array of shape (n_alphas, n_folds)
        Held-out losses.
    chosen : float
        The strength that was chosen.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    """

    def __init__(self, alphas: np.ndarray, losses: np.ndarray, chosen: float) -> None:
        self.alphas = alphas
        self.losses = losses
        self.chosen = chosen

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> CVDisplay:
        """Draw the curve of a fitted estimator with cross-validation, such as ``LassoCV``.

        Parameters
        ----------
        estimator : fitted estimator
            With ``alphas_``, ``cv_loss_`` and ``alpha_``.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CVDisplay
            The display, drawn.
        """
        check_is_fitted(estimator, "cv_loss_")
        return cls(estimator.alphas_, estimator.cv_loss_, estimator.alpha_).plot(ax=ax)

    def plot(self, ax: Any = None) -> CVDisplay:
        """Draw the mean, one standard error to either side, and the choice.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        CVDisplay
            Itself.
        """
        check_matplotlib_support("CVDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        folds = self.losses.shape[1]
        mean = self.losses.mean(axis=1)
        error = self.losses.std(axis=1, ddof=min(1, folds - 1)) / np.sqrt(folds)
        ax.plot(self.alphas, mean, label="mean of the folds")
        ax.fill_between(self.alphas, mean - error, mean + error, alpha=0.2)
        ax.axvline(self.chosen, linestyle="--", color="0.4", label="chosen")
        _alpha_axis(ax, self.alphas)
        ax.set_ylabel("held-out loss")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _alpha_axis(ax: Any, alphas: np.ndarray) -> None:
    """Let strengths fall from left to right on a logarithmic scale, with labels that fit.

    A logarithm has no place for zero: the axis is linear below the least strength that is more
    than rounding.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xlabel("alpha")
    above = alphas[alphas > 1e-9 * alphas.max()]
    if len(above) == len(alphas):
        ax.set_xscale("log")
        # The default labels every minor tick of a path within a decade, each over the next.
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif len(above):
        ax.set_xscale("symlog", linthresh=above.min())
        ax.set_xlabel(f"alpha (linear below {above.min():.3g})")
        ax.set_xlim(left=max(ax.get_xlim()[0], -0.2 * above.min()))  # there are none below zero
    ax.xaxis.set_major_formatter("{x:g}")
    ax.invert_xaxis()
