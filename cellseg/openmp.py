"""How OpenMP's threads wait for each other; imported before torch, which reads it then.

They spin for some 20 us, then sleep. On two quiet cores a training step of best-cpu takes a third less than where they
sleep at once, as waking a thread takes longer than many an operation. Where another process has one of the cores, those
that never sleep slow it down tenfold.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
