"""`python -m fcnedge.runtime.ros2 --ros-args -p model:=BUNDLE …`."""

import sys

from .command import main

sys.exit(main())
