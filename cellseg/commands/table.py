"""Names and values as lines to read, or as JSON."""

import json
from typing import Any


def show(values: dict[str, Any], as_json: bool) -> None:
    """Print them, as JSON or as lines of name and value."""
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, each in value.items():
                print(f"  {inner:20} {_shown(each)}")
        else:
            print(f"{name:22} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)
