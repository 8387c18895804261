"""Language models as configurations name them: from the hub, a local file, or a table of probabilities."""

from powerbench.models.hub import HubModel
from powerbench.models.toy import TabularModel

__all__ = ["HubModel", "TabularModel"]
