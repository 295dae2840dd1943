"""Settings: one YAML file, read whole or refused with every fault at once.

``schema`` has the keys, their units and their documentation, ``rules`` what must hold
across keys, ``reading`` turns text into settings and settings into core types.
"""

from scheduler.config.reading import (
    ConfigError,
    load_config,
    node_of,
    nodes_of,
    parse_config,
    policy_of,
    queues_of,
    tenants_of,
)
from scheduler.config.schema import Config, parse_address

__all__ = [
    "Config",
    "ConfigError",
    "load_config",
    "node_of",
    "nodes_of",
    "parse_address",
    "parse_config",
    "policy_of",
    "queues_of",
    "tenants_of",
]
