"""Speed and memory, as ratios measured in one run. Not collected by pytest: figures depend on the machine."""
