"""Settings: one YAML file, read whole or refused with every fault at once.

``schema`` has the keys and their documentation, ``values`` how each value is written,
``rules`` what must hold across keys (of tenants: ``scheduler.tenancy``), ``reading``
turns text into settings and settings into core types. ``objects`` has the same terms
for Kubernetes: Tenant and Fleet objects.
"""

from scheduler.config.objects import FleetSpec, Selector, TenantSpec, read_spec
from scheduler.config.reading import (
    ConfigError,
    fleet_from,
    fleet_of,
    load_config,
    node_of,
    nodes_of,
    parse_config,
    policy_of,
    queue_from,
    queues_of,
    read_tenancy,
    tenancy_of,
)
from scheduler.config.schema import Config
from scheduler.config.values import parse_address

__all__ = [
    "Config",
    "ConfigError",
    "FleetSpec",
    "Selector",
    "TenantSpec",
    "fleet_from",
    "fleet_of",
    "load_config",
    "node_of",
    "nodes_of",
    "parse_address",
    "parse_config",
    "policy_of",
    "queue_from",
    "queues_of",
    "read_spec",
    "read_tenancy",
    "tenancy_of",
]
