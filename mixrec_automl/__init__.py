"""The AutoML search service: controller, store, cluster, tracking and command line."""

__version__ = "0.1.0"
