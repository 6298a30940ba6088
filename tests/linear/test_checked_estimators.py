"""Every estimator whose fit takes features and a target goes through scikit-learn's checks."""

import ast
import inspect
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

from thresher import linear

#: Why scikit-learn's checks cannot be applied, though ``fit`` begins with features and a target.
OTHERWISE = {
    "ListDecodableRegression": "its fit needs the groups in which samples come",
    "SimultaneousGLM": "it fits many problems, a column of targets each",
    "SurvivalCurves": "its target is times with events, which the checks do not make",
}


def checked():
    """Return the names that tests call inside ``parametrize_with_checks``."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        values = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "parametrize_with_checks":
                given = node.args[0]
                given = values[given.id] if isinstance(given, ast.Name) else given
                calls = [part.func for part in ast.walk(given) if isinstance(part, ast.Call)]
                found |= {ast.unparse(call).rpartition(".")[2] for call in calls}
    return found


def plain():
    """Return the names of the estimators whose fit begins with features and a target."""
    for name in linear.__all__:
        kind = getattr(linear, name)
        if isinstance(kind, type) and issubclass(kind, BaseEstimator):
            first = list(inspect.signature(kind.fit).parameters)[1:3]
            if [part.lower() for part in first] == ["x", "y"]:
                yield name


@pytest.mark.parametrize("name", list(plain()))
def test_it_is_checked_or_says_why_not(name):
    assert (name in checked()) != (name in OTHERWISE)
