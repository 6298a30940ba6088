"""
Which genes tell two leukaemias apart?
======================================

The expression of 3,051 genes in 38 patients, 27 with lymphoblastic (ALL) and 11 with myeloid (AML)
leukaemia. A handful of genes tells the two apart; whether other patients would have chosen the same
handful is another question.

From a checkout, ``PYTHONPATH=. python examples/golub.py`` runs this page.
"""

# %%
# The data
# --------
# The first run fetches a pinned package of Debian's (1 MB) and reads its table in a process of its
# own. Every gene is scaled to mean 0 and variance 1.

import sys

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.linear.data import named
from thresher.linear import SparseLogistic, SparseLogisticCV, StabilitySelection

data = named("golub", sys.executable)
X = (data["X"] - data["X"].mean(axis=0)) / data["X"].std(axis=0)
myeloid, genes = data["positive"], data["names"]
print(f"{X.shape[0]} patients x {X.shape[1]} genes, {myeloid.sum()} AML")

# %%
# One model
# ---------
# The folds keep the share of both classes. Of all strengths whose held-out loss lies within one
# standard error of the lowest, the strongest leaves the fewest genes.

model = SparseLogisticCV(n_alphas=30, eps=0.05, cv=5, selection="one-se").fit(X, myeloid)
loss, coef = model.cv_loss_.mean(axis=1), model.coef_[0]
chosen = np.flatnonzero(coef)
print(f"held-out log loss {loss.min():.3f}, without any gene {loss[0]:.3f}")
print(f"{len(chosen)} genes, right for {np.mean(model.predict(X) == myeloid):.0%} of the patients")
for gene in chosen[np.argsort(-np.abs(coef[chosen]))][:8]:
    print(f"{coef[gene]:+.2f}  {genes[gene]}")

# %%
# Would other patients have chosen the same?
# ------------------------------------------
# Stability selection fits both halves of many random divisions of the patients, and counts how
# often each gene is used. In place of one strength there is a threshold for that share, and with
# it a bound on how many genes chosen by chance are to be expected among those that pass.

stable = StabilitySelection(SparseLogistic(), n_pairs=25, random_state=0).fit(X, myeloid)
print(f"{stable.get_support().sum()} genes reach a share of {stable.threshold:.0%}")
print(f"by chance at most {stable.expected_false_:.1f} would")
ranked = np.argsort(-stable.scores_)[:40]
for gene in ranked[:5]:
    print(f"{stable.scores_[gene]:.2f}  {genes[gene]}")

# %%
# How the two compare
# -------------------
# Of genes that go along with each other the penalty takes one, and in other patients another. The
# model predicts well, and its list is still one of many that would.

share = stable.scores_[ranked]
plt.bar(np.arange(len(share)), share, color="0.8")
inside = np.isin(ranked, chosen)
plt.bar(np.flatnonzero(inside), share[inside], label="in the one model")
plt.axhline(stable.threshold, linestyle="--", color="0.4", label="threshold")
plt.xlabel("genes by how often halves choose them")
plt.ylabel("share of the halves")
plt.legend()
plt.show()
