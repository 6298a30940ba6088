import math
import subprocess
import sys

import pytest
from thresher.evidence._statistics import paired_margin


def test_the_paired_margin_is_the_mean_less_its_standard_error():
    assert paired_margin([1.0, 2.0, 3.0]) == pytest.approx(2 - 1 / math.sqrt(3))
    assert paired_margin([-1.0, 3.0]) == pytest.approx(1 - 2)
    assert paired_margin([0.5]) == 0.5


def test_experiments_of_numpy_alone_import_no_torch():
    names = ("kronecker_bayes", "l_infinity_synthetic_control", "one_sided_completion")
    names += ("representers", "scoring_system")
    code = "import sys\n" + "".join(f"import thresher.evidence.linear.{name}\n" for name in names)
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
