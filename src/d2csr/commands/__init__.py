"""The commands: Hydra applications, each a thin shell around a plain function. Hydra is known here and nowhere else."""
