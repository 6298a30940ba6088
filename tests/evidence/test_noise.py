import subprocess
import sys

import numpy as np
import pytest
from thresher.evidence._statistics import powers


def test_powers_are_those_of_every_draw():
    sizes = np.array([10.0, 20.0, 80.0])
    values = np.column_stack([3 * sizes**-0.5, 7 * sizes**2])
    assert powers(sizes, values) == pytest.approx([-0.5, 2.0])


def test_experiments_of_numpy_alone_import_no_torch():
    names = ("kronecker_bayes", "l_infinity_synthetic_control", "one_sided_completion")
    names += ("gamp_bayes", "representers", "scoring_system")
    code = "import sys\n" + "".join(f"import thresher.evidence.linear.{name}\n" for name in names)
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
