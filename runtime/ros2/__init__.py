"""A ROS 2 node: camera images in, masks out. Start it with `python -m fcnedge.runtime.ros2`; see `node.MaskNode`."""
