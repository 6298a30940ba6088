"""
Which mails are spam?
=====================

4,601 mails, each described by the frequencies of 48 words and 6 characters and by the lengths of
its runs of capitals. Few of these 57 features are enough for a filter; how many, and what the
filter costs in good mails lost, is decided on mails that it has not seen.

From a checkout, ``PYTHONPATH=. python examples/spam.py`` runs this page.
"""

# %%
# The data
# --------
# The first run fetches a pinned package of Debian's (2 MB) and reads its table in a process of its
# own. Most frequencies are zero and a few are large, so that their logarithms make better
# features; what is learnt of their scale is learnt from the training mails alone.

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from benchmarks.linear.data import named
from thresher.linear import CVDisplay, SparseLogisticCV

data = named("spam", sys.executable)
X, spam, names = data["X"], data["positive"], data["names"]
train, test, spam_train, spam_test = train_test_split(
    X, spam, test_size=0.3, stratify=spam, random_state=0
)
print(f"{len(X)} mails x {len(names)} frequencies, {spam.sum()} spam; {len(test)} are held out")

# %%
# Raw frequencies or their logarithms?
# ------------------------------------
# Both go through the same pipeline. The largest strength within one standard error of the lowest
# held-out loss is taken.

raw = make_pipeline(StandardScaler(), SparseLogisticCV(n_alphas=30, selection="one-se"))
logarithms = FunctionTransformer(lambda X: np.log(X + 0.01))
scaled = make_pipeline(
    logarithms, StandardScaler(), SparseLogisticCV(n_alphas=30, selection="one-se")
)
for told, model in (("raw", raw), ("logarithms", scaled)):
    model.fit(train, spam_train)
    used = np.count_nonzero(model[-1].coef_)
    print(f"{told:<11} {used} features, {model.score(test, spam_test):.1%} of held-out mails right")

# %%
# How many features?
# ------------------
# The folds agree on nearly the same loss from some strength on: what comes in later adds little.

CVDisplay.from_estimator(scaled[-1])
plt.show()

# %%
# What speaks for spam, and what against?
# ---------------------------------------
# Coefficients are changes in log odds per standard deviation of a feature's logarithm. ``george``
# and ``num650`` are of the man, and of his telephone, whose good mails these are: another reader's
# filter needs to be fitted to another reader's mails.

coef = scaled[-1].coef_[0]
order = np.argsort(coef)
for title, places in (("spam", order[::-1][:6]), ("good", order[:6])):
    print(f"{title}: " + ", ".join(f"{names[j]} {coef[j]:+.2f}" for j in places))

# %%
# Where to draw the line?
# -----------------------
# A good mail that is lost costs more than a spam that comes through. The threshold is the one that
# loses one good training mail of two hundred, and held-out mails tell what it does.

good = scaled.predict_proba(train[~spam_train])[:, 1]
threshold = np.quantile(good, 0.995)
caught = scaled.predict_proba(test)[:, 1] > threshold
print(
    f"above {threshold:.2f}: {np.mean(caught[spam_test]):.1%} of the spam is caught, "
    f"{np.mean(caught[~spam_test]):.1%} of the good mails are lost"
)

plt.hist(
    [scaled.predict_proba(test[~spam_test])[:, 1], scaled.predict_proba(test[spam_test])[:, 1]],
    bins=40,
    label=["good", "spam"],
)
plt.axvline(threshold, linestyle="--", color="0.4")
plt.yscale("log")
plt.xlabel("probability of spam")
plt.ylabel("held-out mails")
plt.legend()
plt.show()
