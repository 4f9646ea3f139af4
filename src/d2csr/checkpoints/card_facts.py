"""Content of a model card, taken from a checkpoint, its training run and its evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from d2csr.checkpoints.inferred_settings import obstacle_to_inference
from d2csr.checkpoints.loading import Checkpoint, read_checkpoint
from d2csr.checkpoints.own import read_training_state
from d2csr.checks import nested, whole_number
from d2csr.errors import CheckpointError, ConfigError, DataError
from d2csr.files import file_hash, require_regular_file, user_path
from d2csr.hub.model_card import CardFacts, Scores
from d2csr.models import SRNetwork

_METRICS = "metrics.json"
_MAX_METRICS = 64 * 2**20  # bytes
_MODEL = "this model"
_DATA_NAMES = {
    "realsr": "RealSR",
    "drealsr": "DRealSR",
    "d2crealsr": "D2CRealSR",
    "demo": "built-in photographs of d2csr",
}


def card_facts(
    model: SRNetwork,
    *,
    checkpoint: str | Path | None = None,
    evaluation: str | Path | None = None,
    dataset: str | None = None,
    pictures: int = 3,
) -> CardFacts:
    """Return what is known about a model.

    Args:
        model: the model.
        checkpoint: the run folder or checkpoint that it was loaded from. Its training state holds the settings of the
            training.
        evaluation: a folder of ``d2csr-eval``, with ``metrics.json`` and perhaps ``panels``; by default ``eval`` in the
            run folder, if it has one.
        dataset: name of the test images; by default that of the training data, if the evaluation used its test list.
        pictures: largest number of panels.

    Raises:
        CheckpointError: the checkpoint holds other weights than the model, or the evaluation is of another one.
        ConfigError: a value is impossible.
    """
    whole_number("pictures", pictures, 0)
    source = read_checkpoint(checkpoint) if checkpoint is not None else None
    if source is not None:
        _require_same_weights(model, source)
    elif evaluation is not None:
        raise ConfigError("evaluation: needs checkpoint, the run or checkpoint that was evaluated.")
    folder = _evaluation_folder(checkpoint, evaluation)
    scores, named = _evaluation(folder / _METRICS, source) if folder and source is not None else ([], False)
    data = source.data if source is not None else {}
    tested_on = f"{_data_name(data)} test, ×{model.scale}" if data.get("name") and not named else None
    return CardFacts(
        settings=model.settings,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        leaves=model.tree.num_leaves,
        whole_image=getattr(next(iter(model.divergence.bodies.values())), "receptive_field", None) is None,
        for_spandrel=obstacle_to_inference(model) is None,
        training=_training(source) if source is not None else {},
        dataset=dataset or tested_on,
        scores=scores,
        pictures=sorted((folder / "panels").glob("*.png"))[:pictures] if folder is not None else [],
    )


def _require_same_weights(model: SRNetwork, source: Checkpoint) -> None:
    ours = model.state_dict()
    same = source.weights.keys() == ours.keys() and all(
        torch.equal(ours[name].cpu(), value) for name, value in source.weights.items()
    )
    if not same:
        raise CheckpointError(f"{source.path}: holds other weights than the model, so a card cannot describe both.")


def _evaluation_folder(checkpoint: str | Path | None, evaluation: str | Path | None) -> Path | None:
    if evaluation is not None:
        folder = user_path(evaluation)
        if not (folder / _METRICS).exists():
            raise ConfigError(f"evaluation: {folder} has no {_METRICS}. Name a folder that d2csr-eval has written.")
        return folder
    found = user_path(checkpoint or "") / "eval"
    return found if checkpoint is not None and (found / _METRICS).exists() else None


def _evaluation(path: Path, source: Checkpoint) -> tuple[list[Scores], bool]:
    """Return the scores of a checkpoint by each protocol, and whether its evaluation named the test images itself."""
    try:
        require_regular_file(path, _MAX_METRICS)
        content = json.loads(path.read_bytes())
        digest = file_hash(source.path)
        names = [one["method"] for one in content["checkpoints"] if one["sha256"] == digest]
        protocols = {content["protocol"]: content, **content.get("protocols", {})}
        scores = [_of_protocol(str(name), one, names[0]) for name, one in protocols.items()] if names else []
        named = " data." in content["environment"]["command"].replace("'", "")
    except DataError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{path}: not the scores of d2csr-eval ({reason}).") from None
    if not scores:
        raise CheckpointError(
            f"{path}: an evaluation of other checkpoints than {source.path}. Evaluate that one, or name another "
            "evaluation."
        )
    return scores, named


def _of_protocol(name: str, content: Mapping[str, Any], method: str) -> Scores:
    methods = {"bicubic": content["methods"]["bicubic"], _MODEL: content["methods"][method]}
    numbers = {
        one: {key: float(scores[key]) for key in ("psnr", "ssim") if scores.get(key) is not None}
        for one, scores in methods.items()
    }
    return Scores(name, str(content["scored_on"]), len(content["images"]), numbers)


def _training(source: Checkpoint) -> dict[str, str]:
    """Return the rows of the card about the training; paths are cut to the names of files."""
    if source.official:
        return {"Weights": "of the official implementation, https://github.com/megvii-research/D2C-SR"}
    rows = dict(_data_rows(source.data))
    with suppress(CheckpointError):  # raised for weights alone
        state = read_training_state(source.path)
        rows |= {"Length": f"{state['step']:,} steps", **_setting_rows(state["settings"])}
    return {name: value for name, value in rows.items() if value}


def _data_name(data: Mapping[str, Any]) -> str:
    return _DATA_NAMES.get(str(data["name"]), str(data["name"]))


def _data_rows(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if data.get("name"):
        lists = [Path(str(data["train_list"])).name] if data.get("train_list") else []
        yield "Training data", f"{_data_name(data)}{f', list {lists[0]}' if lists else ''}"
    if validated := data.get("validated_on"):
        yield "Checkpoint chosen by", f"validation on {Path(str(validated)).name}"


def _setting_rows(settings: Mapping[str, Any]) -> dict[str, str]:
    of = partial(nested, settings)
    mode = str(of("optimization") or "")
    optimizer = str(of("model", "optimizer", "_target_") or "").rpartition(".")[2]
    rate, batch, patch = of("model", "optimizer", "lr"), of("data", "batch_size"), of("data", "patch_size")
    return {
        "Batch": f"{batch} patches of {patch}×{patch} LR pixels per device" if batch and patch else "",
        "Optimization": ", ".join(part for part in (mode, optimizer, f"learning rate {rate}" if rate else "") if part),
        "Average of the weights": f"decay {of('model', 'ema_decay')}" if of("model", "ema_decay") else "",
        "Initial weights": f"from {Path(str(of('init_from'))).name}" if of("init_from") else "",
        "Seed": str(of("seed")) if of("seed") is not None else "",
    }
