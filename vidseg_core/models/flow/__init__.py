"""Flow nets F: current and key picture in, flow from current to key out."""

from vidseg_core.models.flow.registry import BUNDLED, FlowNet, build_flow_net

__all__ = ["BUNDLED", "FlowNet", "build_flow_net"]
