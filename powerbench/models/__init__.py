"""Language models as configurations name them: from the hub, a local file, a table, or behind an API.

They are loaded when they are first asked for: with them come torch and transformers, which take seconds, and
a report, which needs `flops` alone, needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powerbench.models.endpoint.model import EndpointModel
    from powerbench.models.hub import HubModel
    from powerbench.models.toy import TabularModel

__all__ = ["EndpointModel", "HubModel", "TabularModel"]

MODULES = {
    "EndpointModel": "powerbench.models.endpoint.model",
    "HubModel": "powerbench.models.hub",
    "TabularModel": "powerbench.models.toy",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)
