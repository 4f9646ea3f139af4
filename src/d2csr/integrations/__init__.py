"""Registration of the model in other programs' loaders."""
