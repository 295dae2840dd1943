"""Results for machines, for the screen, and as a page to look at.

summary  the figures of one run, put together
table    the figures as tables on the screen
charts   the figures as plots
page     one HTML file that needs no network
look     the look that all pages share
"""

from simulator.report.page import write_page
from simulator.report.summary import SCHEMA, Replay, document, promises_kept, summary
from simulator.report.table import print_fluid, print_policies

__all__ = [
    "SCHEMA",
    "Replay",
    "document",
    "print_fluid",
    "print_policies",
    "promises_kept",
    "summary",
    "write_page",
]
