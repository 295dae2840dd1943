"""Turn the collected GPU facts into the literal that the core compiles in.

The core is pure and reads no file, so the facts reach it as Python. Nothing is added
here but names: a GPU class is called after its model and the memory of its whole-GPU
profile, and each suggested weight is given to the classes it was meant for.

    python deploy/tools/generate_gpu_tables.py            rewrite the module
    python deploy/tools/generate_gpu_tables.py --check    only compare, for the gate
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FACTS = ROOT.parent / "shared" / "facts" / "mig_profiles.yaml"
MODULE = ROOT / "scheduler" / "core" / "gpu_tables.py"

HEADER = '''\
"""GPU classes, MIG geometries and product labels. GENERATED: do not edit.

Written by deploy/tools/generate_gpu_tables.py from the collected facts,
mig_profiles.yaml; `make test` compares where those facts are at hand.
"""

from typing import Final
'''

# Which classes a suggested weight speaks for. A class of several boards takes the one
# that is common in clusters: h100-80gb is mostly SXM, so "H100-PCIe" names no class.
WEIGHTED = {
    "A10": ("a10-24gb", "a10g-24gb"),
    "A100-40GB": ("a100-40gb", "a800-40gb"),
    "A100-80GB": ("a100-80gb", "a800-80gb"),
    "A30": ("a30-24gb",),
    "B200": ("b200-180gb", "gb200-186gb"),
    "B300": ("b300-269gb", "gb300-278gb"),
    "GH200-96GB": ("gh200-96gb", "gh200-144gb"),
    "H100-NVL": ("h100-94gb", "h800-94gb"),
    "H100-PCIe": (),
    "H100-SXM": ("h100-80gb", "h100-96gb", "h800-80gb"),
    "H200": ("h200-141gb",),
    "L4": ("l4-24gb",),
    "L40S": ("l40s-48gb",),
    "RTX-PRO-6000": ("rtx-pro-6000-96gb",),
    "T4": ("t4-16gb",),
    "V100-16GB": ("v100-16gb", "v100-32gb"),
}

Yaml = dict[str, Any]


def class_name(label: str, product: Yaml) -> str:
    """Name the class of a product: model, and gigabytes of its whole-GPU profile."""
    model = re.match(r"NVIDIA-(RTX-PRO-\d+|[A-Z]+\d+)", label)
    whole = [
        name
        for name, profile in product["profiles"].items()
        if profile["memory_units"] == product["memory_units"] and name.endswith("gb")
    ]
    if model is None or len(whole) != 1:
        raise ValueError(f"{label}: no model or no single whole-GPU profile: {whole}")
    return f"{model[1].lower()}-{whole[0].split('.')[1]}"


def classes(facts: Yaml) -> dict[str, tuple[str, dict[str, str], dict[str, str]]]:
    """Gather what the products of each class have in common; they must agree."""
    found: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {}
    for label, product in facts["products"].items():
        profiles = product["profiles"].items()
        entry = (
            product["family"],
            {name: profile["kind"] for name, profile in profiles},
            {
                alias: name
                for name, profile in profiles
                for alias in profile.get("alias_names", ())
            },
        )
        name = class_name(label, product)
        if found.setdefault(name, entry) != entry:
            raise ValueError(f"{label}: differs from other products of {name}")
    return dict(sorted(found.items()))


def starts(kind: Yaml) -> tuple[int, ...]:
    """Read "start:size" placements; every size must be the kind's own."""
    pairs = [str(place).split(":") for place in kind["placements"]]
    if any(int(size) != kind["memory_units"] for _, size in pairs):
        raise ValueError(f"placements of another size: {kind}")
    return tuple(int(start) for start, _ in pairs)


def render(facts: Yaml) -> str:
    """Write the module's text."""
    lines = [HEADER]
    suffix = facts["label_normalisation"]["strip_suffix_regex"]
    lines += [f"PRODUCT_SUFFIX: Final = r{suffix!r}".replace("\\\\", "\\"), ""]
    lines += _geometries(facts) + _classes(facts) + _products(facts) + _weights(facts)
    return "\n".join(lines).rstrip() + "\n"


def _geometries(facts: Yaml) -> list[str]:
    lines = [
        "# family: (units per GPU, seen on hardware, media engines per GPU, kinds)",
        "# kind: (units, starts, most per GPU, exclusive group or '', engines)",
        "Kind = tuple[int, tuple[int, ...], int, str, dict[str, int]]",
        "GEOMETRIES: Final[",
        "    dict[str, tuple[int, bool, dict[str, int], dict[str, Kind]]]",
        "] = {",
    ]
    for name, family in facts["geometry_families"].items():
        verified = family["verified"] == "hardware"
        budget = family.get("media_budget", {})
        lines += [f"    {name!r}: ({family['memory_units']}, {verified}, {budget}, {{"]
        for kind_name, kind in family["kinds"].items():
            group = kind.get("exclusive_group", "")
            value = (
                kind["memory_units"],
                starts(kind),
                kind["max_instances"],
                group,
                kind.get("engines", {}),
            )
            lines += [f"        {kind_name!r}: {value},"]
        lines += ["    }),"]
    return [*lines, "}", ""]


def _classes(facts: Yaml) -> list[str]:
    lines = [
        "# class: (family, profile -> kind, other name of a profile -> profile)",
        "CLASSES: Final[dict[str, tuple[str, dict[str, str], dict[str, str]]]] = {",
    ]
    for name, (family, kinds, aliases) in classes(facts).items():
        lines += [f"    {name!r}: ({family!r},", f"        {kinds},"]
        lines += [f"        {aliases}),"]
    return [*lines, "}", ""]


def _products(facts: Yaml) -> list[str]:
    lines = ["PRODUCTS: Final[dict[str, str]] = {"]
    for label, product in sorted(facts["products"].items()):
        lines += [f"    {label!r}: {class_name(label, product)!r},"]
    return [*lines, "}", ""]


def _weights(facts: Yaml) -> list[str]:
    prices = facts["price_defaults_usd_per_gpu_hour"]
    suggested = prices["suggested_internal_weight"]["values"]
    if suggested.keys() != WEIGHTED.keys():
        raise ValueError(f"weights for others: {suggested.keys() ^ WEIGHTED.keys()}")
    weights = {
        name: round(suggested[key] * 1000)
        for key, names in WEIGHTED.items()
        for name in names
    }
    lines = [
        "# Relative worth in thousandths, suggested and not measured.",
        "VALUE_WEIGHTS: Final[dict[str, int]] = {",
    ]
    lines += [f"    {name!r}: {weight}," for name, weight in sorted(weights.items())]
    return [*lines, "}", ""]


def main() -> int:
    """Rewrite the module, or with --check say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    parser.add_argument("--facts", type=Path, default=FACTS, help="mig_profiles.yaml")
    options = parser.parse_args()
    if options.check and not options.facts.exists():
        print("gpu tables: skipped, the collected facts are not beside this checkout")
        return 0
    text = render(yaml.safe_load(options.facts.read_text(encoding="utf-8")))
    if not options.check:
        MODULE.write_text(text, encoding="utf-8")
        return 0
    if MODULE.read_text(encoding="utf-8") == text:
        return 0
    print("gpu tables: stale; run python deploy/tools/generate_gpu_tables.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
