"""The commands: Hydra applications, each a thin layer over a plain function. Only they import Hydra."""
