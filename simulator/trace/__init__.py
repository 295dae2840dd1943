"""The normal form of a trace: jobs, tenants and nodes.

errors    what is wrong with a row, and what happened to bad rows
rows      typed access to the cells of one row
job       the types: `TraceJob`, `Trace`
amounts   how people write amounts: ``h100-80gb:8``, ``64x8``
quotas    which guarantees hold in a replay
normal    the one-file form: reader and writer
cluster   nodes and tenants from a YAML file
"""

from simulator.trace.amounts import parse_counts, parse_nodes
from simulator.trace.cluster import read_cluster
from simulator.trace.curve import Curve
from simulator.trace.errors import RowErrors, TraceError
from simulator.trace.job import Trace, TraceJob, merge
from simulator.trace.normal import read_normal, write_normal
from simulator.trace.quotas import settle
from simulator.trace.rows import Row, read_rows

__all__ = [
    "Curve",
    "Row",
    "RowErrors",
    "Trace",
    "TraceError",
    "TraceJob",
    "merge",
    "parse_counts",
    "parse_nodes",
    "read_cluster",
    "read_normal",
    "read_rows",
    "settle",
    "write_normal",
]
