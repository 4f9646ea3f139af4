"""The model with the methods of the hub, and :func:`load_model`.

A folder of ``save_pretrained`` holds ``config.json`` (the settings of the network), ``model.safetensors`` and the model
card ``README.md``: the layout of huggingface_hub's ``PyTorchModelHubMixin``, with the same methods.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

import d2csr.models
from d2csr.checkpoints.card_facts import card_facts
from d2csr.checkpoints.loading import read_checkpoint
from d2csr.checkpoints.safetensors_file import ABOUT, write_safetensors
from d2csr.errors import CheckpointError
from d2csr.files import atomic_write, user_path, write_checkpoint_file
from d2csr.hub.model_card import write_card
from d2csr.hub.transfer import CONFIG, WEIGHTS, HubAddress, download, is_address, upload_folder
from d2csr.models import SRNetwork
from d2csr.plugins import import_plugins

_Model = TypeVar("_Model", bound="PublishedNetwork")
_CARD = "README.md"


class PublishedNetwork(SRNetwork):
    """A network with methods that load it from a folder or the hub, and save it there."""

    @classmethod
    def from_pretrained(
        cls: type[_Model],
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[str] = (),
        **download_options: Any,
    ) -> _Model:
        """Load a model from a folder of :meth:`save_pretrained` or from the hub, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder or checkpoint, or ``user/name``, a repository on the hub.
            revision: a branch, tag or commit of the repository.
            device: of the model.
            plugins: names of your modules that register bodies.
            **download_options: of the hub: ``token``, ``cache_dir``, ``force_download``, ``local_files_only``.

        Raises:
            CheckpointError: as :func:`load_model`.
            ConfigError: a package or a plugin is missing.
        """
        import_plugins(plugins)
        path = pretrained_model_name_or_path
        if is_address(path) or not (str(path).startswith((".", "/", "~")) or Path(path).exists()):
            address = HubAddress.parse(path if is_address(path) else f"hf://{path}")
            path = download(replace(address, revision=revision or address.revision), **download_options)
        model = read_checkpoint(path).model(CLASSES)
        if not isinstance(model, cls):
            raise CheckpointError(
                f"{path}: holds a {type(model).__name__}, not a {cls.__name__}; use d2csr.load_model."
            )
        return model.to(device).eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and, unless it exists, the model card ``README.md``.

        Args:
            save_directory: the folder, which is made.
            repo_id: ``user/name``, for the card and for ``push_to_hub``; the name of the folder by default.
            push_to_hub: also upload the folder, in one commit.
            model_card_kwargs: ``title``, ``author`` and ``license``, also for the metadata of the weights; and the
                arguments of :func:`d2csr.checkpoints.card_facts.card_facts`: ``checkpoint``, ``evaluation``,
                ``dataset``, ``pictures``.
            **push_to_hub_kwargs: ``private``, ``token``, ``commit_message``, ``revision``, ``create_pr`` of the upload.

        Returns:
            The address of the commit on the hub, or None.

        Raises:
            CheckpointError: a file cannot be written, or the card's checkpoint holds other weights.
            ConfigError: a package is missing, or a value is impossible.
        """
        if push_to_hub_kwargs and not push_to_hub:
            raise TypeError(f"{', '.join(push_to_hub_kwargs)}: only with push_to_hub=True.")
        folder = user_path(save_directory)
        card = dict(model_card_kwargs or {})
        about = {name: str(card.pop(name)) for name in ABOUT if card.get(name)}
        facts = card_facts(self, **{name: value for name, value in card.items() if name not in ABOUT})
        with write_checkpoint_file(folder / WEIGHTS) as partial:
            write_safetensors(partial, self, about=about)
        try:
            with atomic_write(folder / CONFIG) as partial:
                config = {**self.settings, "library_name": "d2csr", "d2csr_version": d2csr.__version__}
                partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            if not (folder / _CARD).exists():
                write_card(folder / _CARD, facts, about, repo=repo_id)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written ({error.strerror or error}).") from None
        return upload_folder(folder, repo_id or folder.name, **push_to_hub_kwargs) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a D2C-SR model",
        branch: str | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **upload_options: Any,
    ) -> str:
        """Upload the files of :meth:`save_pretrained` to the hub, in one commit, and return its address.

        Args:
            repo_id: ``user/name``; the repository is made if it does not exist. Its README.md, if it has one, is kept.
            commit_message: of the commit.
            branch: to push to; the main branch by default.
            model_card_kwargs: as of :meth:`save_pretrained`.
            **upload_options: ``private``, of a new repository; ``token`` of the account, by default that of
                ``HF_TOKEN`` or ``hf auth login``; ``create_pr``, for a pull request instead; ``allow_patterns``,
                ``ignore_patterns``, ``delete_patterns``.

        Raises:
            CheckpointError: the hub refuses it, or cannot be reached.
            ConfigError: a package is missing.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id, model_card_kwargs=model_card_kwargs)
            options = {"commit_message": commit_message, "revision": branch, **upload_options}
            return upload_folder(Path(folder), repo_id, kept=(_CARD,), **options)


class D2CSR(PublishedNetwork, d2csr.models.D2CSR):
    """The model, with methods for folders and the hub: N×3×H×W to N×3×sH×sW, RGB in [0, 1], not clamped.

    The network, its arguments and its attributes are those of :class:`d2csr.models.D2CSR`.
    """


class PathEnsemble(PublishedNetwork, d2csr.models.PathEnsemble):
    """The :class:`d2csr.models.PathEnsemble` with methods for folders and the hub."""


CLASSES: dict[str, type[SRNetwork]] = {"d2csr": D2CSR, "ensemble": PathEnsemble}


def load_model(path: str | Path, device: str | torch.device = "cpu", plugins: Sequence[str] = ()) -> PublishedNetwork:
    """Load a model, ready for inference.

    Args:
        path: a checkpoint of ``d2csr-train``, an export of ``d2csr-convert`` or ``d2csr-export`` (safetensors), an
            official pickle, a run folder, a folder of ``save_pretrained``, or an address on the hub: ``hf://user/name``,
            ``hf://user/name@revision/file``.
        device: of the model.
        plugins: names of your modules that register bodies.

    Returns:
        The model in eval mode; input and output are RGB in [0, 1].

    Raises:
        CheckpointError: the file is missing, broken or foreign, asks for more than arrays, or holds NaN; or the hub has
            no such file, or cannot be reached.
        ConfigError: a plugin cannot be imported, or a package is missing.
    """
    import_plugins(plugins)
    model = read_checkpoint(path).model(CLASSES)
    assert isinstance(model, PublishedNetwork)
    return model.to(device).eval()
