"""``d2csr-lists``: find the pairs of a data set in its folder, and write them as list files."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.app import command


@command("lists", paths=("root", "output"))
def main(cfg: DictConfig) -> None:
    """Write the lists and print how many pairs each holds."""
    from d2csr.data.discovery import write_lists
    from d2csr.data.lists import read_list

    for split, path in write_lists(cfg.dataset, cfg.root, cfg.scale, cfg.output).items():
        print(f"{path}: {len(read_list(path))} {split} pairs")


if __name__ == "__main__":
    main()
