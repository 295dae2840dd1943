"""Settings: one YAML file, read whole or refused with every fault at once.

``schema`` has the keys, their units and their documentation, ``rules`` what must hold
across keys (of tenants: ``scheduler.tenancy``), ``reading`` turns text into settings
and settings into core types.
"""

from scheduler.config.reading import (
    ConfigError,
    fleet_of,
    load_config,
    node_of,
    nodes_of,
    parse_config,
    policy_of,
    queues_of,
    read_tenancy,
    tenancy_of,
)
from scheduler.config.schema import Config, parse_address

__all__ = [
    "Config",
    "ConfigError",
    "fleet_of",
    "load_config",
    "node_of",
    "nodes_of",
    "parse_address",
    "parse_config",
    "policy_of",
    "queues_of",
    "read_tenancy",
    "tenancy_of",
]
