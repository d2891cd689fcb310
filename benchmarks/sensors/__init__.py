"""What the machine tells about itself while it is measured: clocks, load, throttling, power and memory."""
