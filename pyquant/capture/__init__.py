"""From an ``nn.Module`` to a graph of ATen calls in one canonical spelling."""

from pyquant.capture.export import capture, is_captured

__all__ = ["capture", "is_captured"]
