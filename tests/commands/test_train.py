"""``d2csr-train``: its files, and its messages for wrong settings."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

import d2csr
from helpers import mostly_slow

GOLDEN = Path(__file__).parents[1] / "golden"

TINY = [
    "+experiment=demo",
    "trainer=cpu",
    "model.features=16",
    "model.fusion_features=4",
    "data.patch_size=8",
    "data.batch_size=2",
    "data.patches_per_image=1",
    "data.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "hydra.run.dir=run",
]


@pytest.fixture
def own_list(tmp_path: Path) -> Path:
    """Return a list of three pairs at scale 2, LR 16×12."""
    lines = []
    for number in range(3):
        Image.effect_noise((32, 24), 40).convert("RGB").save(tmp_path / f"hr{number}.png")
        Image.effect_noise((16, 12), 40).convert("RGB").save(tmp_path / f"lr{number}.png")
        lines.append(f"lr{number}.png hr{number}.png\n")
    path = tmp_path / "pairs.txt"
    path.write_text("".join(lines))
    return path


def test_a_run_folder_holds_what_the_interface_names(call, tmp_path: Path) -> None:
    finished = call("train", *TINY)
    assert finished.returncode == 0, finished.stderr
    run = tmp_path / "run"
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", ".hydra/config.yaml", "csv/metrics.csv"):
        assert (run / name).is_file(), name
    assert not [path for path in run.rglob("*") if "=" in path.name]
    assert f"d2csr-eval ckpt={run / 'checkpoints' / 'best.ckpt'}" in finished.stdout

    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert d2csr.load_model(run).scale == 2


@pytest.mark.slow
def test_a_trained_checkpoint_is_evaluated_on_its_own_test_list(call, tmp_path: Path) -> None:
    call("train", *TINY)
    finished = call("eval", "ckpt=run", "hydra.run.dir=scores", "trainer=cpu", "data.num_workers=0")
    assert finished.returncode == 0, finished.stderr
    assert "×2, 3 images, protocol d2csr" in finished.stdout
    rows = (tmp_path / "scores" / "metrics.csv").read_text()
    for name in ("astronaut", "china", "flower"):
        assert f"{name}_LR2.png" in rows


@pytest.mark.slow
def test_lists_of_ones_own_need_no_data_set(call, own_list: Path, tmp_path: Path) -> None:
    finished = call("train", *TINY, "data=pairs", f"data.train_list={own_list}")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_resuming_goes_on_from_the_epoch_reached(call, tmp_path: Path) -> None:
    call("train", *TINY)
    finished = call("train", *TINY, "resume=run", "hydra.run.dir=more", "trainer.max_epochs=3")
    assert finished.returncode == 0, finished.stderr
    assert "Trained 6 steps." in finished.stdout
    state = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6


@pytest.mark.slow
def test_the_log_file_holds_the_environment_and_what_the_terminal_shows(run, tmp_path: Path) -> None:
    arguments = [argument for argument in TINY if "progress_bar" not in argument]
    finished = run("train", *arguments, "seed=3")
    assert finished.returncode == 0, finished.stderr
    log = (tmp_path / "run" / "d2csr-train.log").read_text()
    lines = [line.partition(" - ")[2] for line in log.splitlines()]
    assert lines[0].startswith("command: python -m d2csr.commands.train +experiment=demo")
    assert lines[0].endswith("seed=3")
    for start in ("host: ", "versions: d2csr ", "devices: "):
        assert any(line.startswith(start) for line in lines)
    for line in filter(None, finished.stdout.splitlines()):
        assert line in lines or line in log.splitlines()  # log messages are equal with their prefix
    finished = run("train", *arguments, "trainer.precision=16-mixed")
    assert finished.returncode == 1
    log = (tmp_path / "run" / "d2csr-train.log").read_text()
    assert log.splitlines()[-1].partition(" - ")[2] == finished.stderr.strip().removeprefix("error: ")
    assert "[ERROR]" in log.splitlines()[-1]


@pytest.mark.slow
def test_a_finished_run_says_so(call, tmp_path: Path) -> None:
    call("train", *TINY)
    before = (tmp_path / "run" / "csv" / "metrics.csv").read_text()
    finished = call("train", *TINY, "resume=run")
    assert finished.returncode == 0, finished.stderr
    assert "run is finished already: epoch 2 (trainer.max_epochs=2)" in finished.stdout
    assert "Trained" not in finished.stdout
    assert "Evaluate with: d2csr-eval ckpt=run/checkpoints/best.ckpt" in finished.stdout
    assert (tmp_path / "run" / "csv" / "metrics.csv").read_text() == before


@pytest.mark.slow
def test_a_setting_that_has_changed_is_named(call, tmp_path: Path) -> None:
    call("train", *TINY)
    finished = call("train", *TINY, "resume=auto", "trainer.max_epochs=3", "data.batch_size=1")
    assert finished.returncode == 0, finished.stderr
    for sentence in ("data.batch_size was 2, is 1", "trainer.max_epochs was 2, is 3", "because of data.batch_size"):
        assert sentence in finished.stdout
    assert "seed was" not in finished.stdout


@pytest.mark.slow
def test_init_from_takes_weights_of_an_official_checkpoint(call, tmp_path: Path) -> None:
    arguments = ["model.features=16", "model.groups=2", "model.blocks=1", "model.fusion_features=64"]
    source = GOLDEN / "net-x2-f16-b1.pkl"
    finished = call("train", *TINY, *arguments, f"init_from={source}", "model.optimizer.lr=0", "trainer.max_epochs=1")
    assert finished.returncode == 0, finished.stderr
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(d2csr.load_model(tmp_path / "run")(lr), d2csr.load_model(source)(lr))


@pytest.mark.slow
def test_weights_of_another_scale_that_fit_are_loaded(call) -> None:
    source = f"init_from={GOLDEN / 'net-x4-f16-b1.pkl'}"
    finished = call("train", *TINY, source, "init_strict=false", "trainer.max_epochs=1")
    assert finished.returncode == 0, finished.stderr
    assert "tensors of the network are loaded" in finished.stdout
    assert "init_from: Initial values are kept in divergence." in finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["alternating", "sequential"])
def test_the_other_modes_train_too(call, mode: str) -> None:
    finished = call("train", *TINY, f"optimization={mode}")
    assert finished.returncode == 0, finished.stderr
    assert "Trained 4 steps" in finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["alternating", "joint", "sequential"])
def test_what_training_is_to_do_with_gradients_is_taken_in_every_mode(call, mode: str) -> None:
    accumulate = [] if mode == "alternating" else ["trainer.accumulate_grad_batches=2"]
    clip = ["trainer.gradient_clip_val=0.1", "trainer.precision=bf16-mixed", "trainer.on_nonfinite=skip"]
    finished = call("train", *TINY, f"optimization={mode}", "model.divergence_scope=image", *clip, *accumulate)
    assert finished.returncode == 0, finished.stderr
    assert f"Trained {2 if accumulate else 4} steps" in finished.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pairs.txt: no such list"),
        ("", "pairs.txt: the list names no pair"),
        ("lr0.png hr0.png\nlr1.png\n", "pairs.txt:2: expected 'LR_path HR_path', found 1 path(s): 'lr1.png'"),
        ("lr0.png hr0.png\nlr1.png lost.png\n", "pairs.txt:2: "),
        ("lr0.png hr0.png\nlr1.png lr0.png\n", "pairs.txt:2: "),
        ("lr0.png hr0.png\n\nempty.png hr1.png\n", "pairs.txt:3: "),
    ],
)
def test_a_bad_list_is_named_with_its_line(call, own_list: Path, content: str | None, message: str) -> None:
    (own_list.parent / "empty.png").write_bytes(b"")
    own_list.unlink() if content is None else own_list.write_text(content)
    finished = call("train", *TINY, "data=pairs", "data.train_list=pairs.txt", "data.batch_size=1")
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    mostly_slow(
        [
            (["scale=4"], "these do not fit the scale 4"),
            (["data.patch_size=13"], "smaller than the LR patch of 13"),
            (["data.batch_size=4"], "do not fill one batch of 4"),
            (["data.batch_size=0"], "data.batch_size: must be a whole number from 1 up"),
            (["data.cache=flash"], "data.cache: must be one of none, ram, disk, device, got 'flash'"),
            (["data.on_error=ignore"], "data.on_error: must be one of raise, skip, got 'ignore'"),
            (["data.cache=disk", "data.cache_dir=lr0.png"], "lr0.png/images: decoded images cannot be written there"),
            (["threads=abc"], "error: threads: must be a whole number from 1 up, got 'abc'"),
            (["seed=4294967296"], "error: seed: must be a whole number from 0 to 4294967295, got 4294967296"),
            (["optimization=greedy"], "error: optimization: must be one of alternating, joint, sequential"),
            (["scale=5"], "scale: must be one of 2, 3, 4, 8"),
            (
                ["model.network.features=64.5"],
                "error: model.network.features: must be a whole number from 1 up, got 64.5",
            ),
            (["model.features=true"], "error: model.network.features: must be a whole number from 1 up, got True"),
            (["model.blocks=0"], "error: model.network.body.blocks: must be a whole number from 1 to 1024, got 0"),
            (
                ["model.network.body.name=rcap"],
                "error: model.network.body.name: must be one of edsr, imdn, nafnet, rcab, rrdb, swin, got 'rcap'",
            ),
            (["model.network.body.depth=3"], "error: model.network.body.depth: the body 'rcab' has no such argument"),
            (["model.scheduler.decay_every=0"], "error: model.scheduler.decay_every: must be a whole number from 1 up"),
            (
                ["model.losses.fusion._target_=torch.nn.L7Loss"],
                "model.losses.fusion._target_: 'torch.nn.L7Loss'",
            ),
            (
                ["model.losses.fusion._target_=torch.nn.L1Loss", "+model.losses.fusion.reduction=none"],
                "return a scalar",
            ),
            (["+trainer.callbacks=[x]"], "error: trainer.callbacks: set +callbacks.NAME._target_=CLASS."),
            (["+trainer.max_epoch=3"], "error: trainer.max_epoch: Lightning's Trainer has no such argument"),
            (["+trainer.barebones=true"], "error: trainer.barebones: True is not for a training: no checkpoint"),
            (["+epochs=3"], "error: epochs: no such key. The keys are scale, seed, optimization,"),
            (
                ["+checkpoint.every=3"],
                "error: checkpoint.every: no such key. The keys are every_n_steps, every_minutes;",
            ),
            (["+sed=3"], "error: sed: no such key. Did you mean seed?"),
            (["+experimnt=demo"], "error: experimnt: no such key. Did you mean experiment?"),
            (
                ["model.margin=3"],
                "model.margin: no such key. model has _target_, activation_checkpointing, compile, div",
            ),
            (["plugins=no_such_module"], "error: plugins: no module 'no_such_module'"),
            (
                ["model.scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR"],
                "error: model.scheduler.T_max: torch.optim.lr_scheduler.CosineAnnealingLR needs a value",
            ),
            (["model.branching=[0]"], "error: model.network.branching: must be a whole number from 1 to 9, got 0"),
            (["model.protocol=z"], "must be one of d2csr, cdc, y"),
            (["trainer.precision=7"], "trainer.precision: must be one of 32-true, 32, bf16-mixed"),
            (["trainer.precision=16-mixed"], "trainer.precision: 16-mixed needs a GPU; on a CPU use bf16-mixed"),
            (["optimization=alternating", "trainer.accumulate_grad_batches=2"], "has two steps a batch and cannot"),
            (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val: must be a number at least 0, got -1"),
            (
                ["trainer.gradient_clip_algorithm=l1"],
                "trainer.gradient_clip_algorithm: must be one of norm, value, got",
            ),
            (["+logger.mine={a: 1}"], "error: logger.mine: is no logger; set +logger.mine._target_=CLASS."),
            (["+callbacks.mine=1"], "error: callbacks.mine: is no callback; set +callbacks.mine._target_=CLASS."),
            (["model.optimizer._target_=1"], "error: model.optimizer._target_: must be the name of a class, PACK"),
            (["model.optimizer._target_=torch.optim"], "model.optimizer._target_: torch.optim is no class or function"),
            (["+trainer.val_check_interval=0"], "error: trainer.val_check_interval: must be a number above 0, got 0."),
            (["model.scheduler._partial_=null"], "error: model.scheduler._partial_: must be true or false, got None."),
            (["trainer._target_=builtins.dict"], "error: trainer._target_: makes no Trainer of Lightning, but a dict."),
            (["trainer.on_nonfinite=stop"], "trainer.on_nonfinite: must be one of raise, skip, got"),
            (
                ["model.divergence_scope=pixel"],
                "error: model.losses.divergence.scope: must be one of batch, image, got",
            ),
            (["model.optimizer.lr=fast"], "error: model.optimizer.lr: must be a number at least 0, got 'fast'"),
            (["model.divergence.weight=-1"], "error: model.divergence.weight: must be a number at least 0, got -1"),
            (["+model.optimizer.momentum=1"], "error: model.optimizer.momentum: torch.optim.Adam has no such argument"),
            (["hydra.run.dir=pairs.txt/run"], "pairs.txt/run: cannot be written to (Not a directory)"),
            ([f"hydra.run.dir={'n' * 300}"], "nnn: File name too long"),
            (["resume=a", "init_from=b"], "exclude each other"),
            (["checkpoint.every_n_steps=often"], "checkpoint.every_n_steps: must be a whole number from 1 up, got"),
            (["resume=nowhere"], "nowhere: no such checkpoint"),
            ([f"resume={GOLDEN / 'net-x2-f16-b1.pkl'}"], "use init_from=… instead of resume=…"),
            (
                [f"init_from={GOLDEN / 'net-x4-f16-b1.pkl'}", "init_strict=1"],
                "init_strict: must be true or false, got 1",
            ),
            (
                [f"init_from={GOLDEN / 'net-x4-f16-b1.pkl'}"],
                "init_strict=false with init_from=… loads the weights that fit",
            ),
            ([f"init_from={GOLDEN / 'net-x4-f16-b1.pkl'}"], "architecture: scale is 4 in the checkpoint and 2 here"),
        ]
    ),
)
def test_an_impossible_setting_is_named(call, own_list: Path, overrides: list[str], message: str) -> None:
    finished = call("train", *TINY, "data=pairs", f"data.train_list={own_list}", *overrides)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_hostile_pickle_is_refused_unrun(call, own_list: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps({"state_dict_D": {}, "state_dict_C": Hostile()}))
    finished = call("train", *TINY, "data=pairs", f"data.train_list={own_list}", "init_from=hostile.pkl")
    assert finished.returncode == 1
    assert "refused" in finished.stderr
    assert not (tmp_path / "it ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_the_middle_of_training_loses_nothing(
    call, own_list: Path, tmp_path: Path, workers: int
) -> None:
    """Its header and end are whole, so only decoding finds out; what was trained before stays, in last.ckpt."""
    arguments = [*TINY, "data=pairs", f"data.train_list={own_list}", f"data.num_workers={workers}", "data.cache=none"]
    assert call("train", *arguments, "trainer.max_epochs=1", "data.batch_size=1").returncode == 0
    before = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    broken = tmp_path / "hr1.png"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 0xFF
    broken.write_bytes(content)
    finished = call("train", *arguments, "resume=run", "data.batch_size=1")
    assert finished.returncode == 1
    assert "pairs.txt:2: " in finished.stderr
    assert "hr1.png: a broken image" in finished.stderr
    assert "Traceback" not in finished.stderr
    after = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["global_step"] >= before["global_step"]


@pytest.mark.slow
def test_pairs_that_cannot_be_used_are_left_out_on_demand(call, own_list: Path, tmp_path: Path) -> None:
    (tmp_path / "hr1.png").write_bytes((tmp_path / "hr1.png").read_bytes()[:-600])
    arguments = [*TINY, "data=pairs", f"data.train_list={own_list}", "data.cache=disk", "data.cache_dir=my cache (1)"]
    refused = call("train", *arguments)
    assert refused.returncode == 1
    assert "1 of 3 pairs cannot be used:" in refused.stderr
    assert "pairs.txt:2: " in refused.stderr
    finished = call("train", *arguments, "data.on_error=skip")
    assert finished.returncode == 0, finished.stderr
    assert "1 of 3 pairs are skipped" in finished.stdout
    assert "hr1.png: a broken image" in finished.stdout
    assert len(list((tmp_path / "my cache (1)" / "images").glob("*/*.npy"))) == 4
    evaluated = call("eval", "ckpt=run", "trainer=cpu", "data.num_workers=0", "data.on_error=skip")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "×2, 2 images" in evaluated.stdout
