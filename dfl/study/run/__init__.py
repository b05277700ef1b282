"""From a design to finished cells: features, fitting, processes, baselines."""
