"""Two plain schedulers to compare with, behind the engine's driving interface.

lanes   queues that start their head or wait: `fifo` and `static`
rooms   where a gang goes: whole devices by free count, or the core's placement
"""

from simulator.baselines.lanes import Lanes, fifo, static

__all__ = ["Lanes", "fifo", "static"]
