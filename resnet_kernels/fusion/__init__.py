"""fuse(model), unfuse(model), explain(model): the fused ops inside a model of plain torch modules.

fuse() gives each module whose forward holds a chain of layers a subclass of its own class (mixin.py).
Its forward runs a plan (plan.py), written from a symbolic trace (trace.py, guarded by hazards.py and
reads.py) in which chains and residual blocks were found (units.py, match.py). The plan calls the public
ops with the module's own children (runtime.py).
"""

from .api import fuse, unfuse
from .explain import Explanation, Row, explain

__all__ = ["Explanation", "Row", "explain", "fuse", "unfuse"]
