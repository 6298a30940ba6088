"""Sparse matrices in every form that SciPy allows give what dense ones give."""

import functools

import numpy as np
import pytest
from scipy import sparse

from thresher import linear
from thresher.solve.design import Design
from thresher.solve.weighted_columns import WeightedColumns

from .test_contracts import CASES

pytestmark = pytest.mark.filterwarnings("ignore")
TAKERS = [
    case
    for case in CASES
    if case.predict.keys() == {"predict"} and case.make().__sklearn_tags__().input_tags.sparse
]


def thinned(X):
    return np.where(np.random.default_rng(7).random(X.shape) < 0.5, X, 0.0)


def wide(X, kind):
    matrix = kind(X)
    matrix.indices, matrix.indptr = (a.astype(np.int64) for a in (matrix.indices, matrix.indptr))
    return matrix


def unsorted(X):
    matrix = sparse.csc_array(X)
    for start, end in zip(matrix.indptr, matrix.indptr[1:], strict=False):
        matrix.indices[start:end] = matrix.indices[start:end][::-1].copy()
        matrix.data[start:end] = matrix.data[start:end][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


def repeated(X, kind=sparse.csc_array):
    """Return each entry in two parts that add up."""
    matrix = kind(X)
    parts = [(0.25 * matrix.data, matrix.indices), (0.75 * matrix.data, matrix.indices)]
    data, indices = (np.stack(pair, axis=1).ravel() for pair in zip(*parts, strict=True))
    return kind((data, indices, 2 * matrix.indptr), shape=matrix.shape)


def with_zeros(X):
    rows, columns = np.indices(X.shape)
    return sparse.csc_array(sparse.coo_array((X.ravel(), (rows.ravel(), columns.ravel()))))


FORMS = {
    "csc": sparse.csc_array,
    "csr": sparse.csr_array,
    "coo": sparse.coo_array,
    "lil": sparse.lil_array,
    "dok": sparse.dok_array,
    "bsr": sparse.bsr_array,
    "dia": sparse.dia_array,
    "csc matrix": sparse.csc_matrix,
    "csr matrix": sparse.csr_matrix,
    "csc, 64-bit indices": lambda X: wide(X, sparse.csc_array),
    "csr, 64-bit indices": lambda X: wide(X, sparse.csr_array),
    "unsorted": unsorted,
    "repeated entries": repeated,
    "repeated entries of rows": lambda X: repeated(X, sparse.csr_array),
    "explicit zeros": with_zeros,
}


@functools.cache
def dense_fit(number):
    """Return what a dense array gives to one of the cases, once for all forms."""
    case = TAKERS[number]
    data = case.data()
    return case.make().set_params(**options(case)).fit(thinned(data.pop("X")), **data)


def options(case):
    takes = "tol" in case.make().get_params()
    return {"tol": 1e-10} if takes and case.subject is not linear.OrthogonalMatchingPursuit else {}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", TAKERS, ids=lambda case: case.subject.__name__)
def test_fits_and_predictions_are_those_of_dense_arrays(case, form):
    data = case.data()
    X = thinned(data.pop("X"))
    dense = dense_fit(TAKERS.index(case))
    matrix = FORMS[form](X)
    kept = matrix.copy()
    found = case.make().set_params(**options(case)).fit(matrix, **data)
    np.testing.assert_allclose(found.coef_, dense.coef_, atol=2e-4)
    np.testing.assert_allclose(found.predict(matrix), dense.predict(X), atol=2e-3)
    assert (matrix != kept).nnz == 0
    if hasattr(matrix, "data") and matrix.format in ("csc", "csr"):
        np.testing.assert_array_equal(matrix.data, kept.data)


@pytest.mark.parametrize("form", FORMS)
def test_moments_and_columns_are_exact(form):
    rng = np.random.default_rng(0)
    X = thinned(rng.standard_normal((30, 6)))
    weight = rng.random(30)
    weight /= weight.sum()
    for centre in (False, True):
        expected = Design(X).moments(weight, centre)
        for one, other in zip(
            Design(FORMS[form](X)).moments(weight, centre), expected, strict=True
        ):
            if other is not None:
                np.testing.assert_allclose(one, other, atol=1e-13)
        columns = WeightedColumns(FORMS[form](X), weight, centre)
        np.testing.assert_allclose(
            columns.dense(), WeightedColumns(X, weight, centre).dense(), atol=1e-12
        )
