"""``d2csr-lists``: list files of the pairs in the folder of a data set."""

from __future__ import annotations

from omegaconf import DictConfig

from d2csr.commands.base import command


@command("lists", paths=("root", "output", "scene"))
def main(cfg: DictConfig) -> None:
    """Write the lists and print how many pairs each holds."""
    from d2csr.data.lists import read_list
    from d2csr.data.splits import write_lists

    lists = write_lists(cfg.dataset, cfg.root, cfg.scale, cfg.output, val=cfg.val, seed=cfg.seed, scene=cfg.scene)
    for split, path in lists.items():
        print(f"{path}: {len(read_list(path))} {split} pairs")
    if "train" in lists and "val" not in lists:
        former = lists["train"].with_name(f"{cfg.dataset}_x{cfg.scale}_val.txt")
        if former.is_file():
            print(f"{former}: of an earlier call; its pairs may be in the training list. Delete it, or add val=….")


if __name__ == "__main__":
    main()
