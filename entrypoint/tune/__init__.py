"""Find the settings that serve a box best: one change at a time around its plan, each measured and each still right."""
