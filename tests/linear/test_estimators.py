"""scikit-learn's checks, and agreement with scikit-learn where the two overlap."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from thresher import linear

ESTIMATORS = [
    linear.Lasso(alpha=0.1),
    linear.ElasticNet(alpha=0.1),
    linear.GroupLasso(alpha=0.1),
    linear.MultiTaskLasso(alpha=0.1),
    linear.SparseGLM(alpha=0.1),
    linear.SparseLogistic(),
    linear.LassoCV(n_alphas=5, cv=2),
    linear.ElasticNetCV(n_alphas=5, cv=2),
    linear.GroupLassoCV(n_alphas=5, cv=2),
    linear.SparseLogisticCV(n_alphas=5, cv=2),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
