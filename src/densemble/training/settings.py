"""How one member is trained, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What a training runs on: flags of Lightning's Trainer.

    Attributes:
        accelerator, devices, num_nodes, strategy: see Lightning; several devices train as processes of this machine.
        deterministic: only algorithms that give the same bits again.
        workers: processes that load pictures; ``None``: none on a CPU, four on a GPU.
        loggers: rows of ``LOGGERS``.
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    deterministic: bool = False
    workers: int | None = None
    loggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitSettings:
    """How one member is trained.

    Attributes:
        epochs: passes over the training data.
        learning_rate: peak, of the head; ``None``: found by a range test.
        backbone_share: peak of the backbone's learning rate, as a share of the head's.
        batch_size: pictures per step; ``None``: as many as fit.
        weight_decay: of AdamW.
        augment: row of ``AUGMENT``.
        precision: ``fp32``, ``bf16`` or ``fp16``; weights are float32 in all of them.
        freeze_statistics: the backbone's batch normalization keeps its pretrained mean and variance.
        seed: of weights, order and augmentation.
        averaging: ``none``, ``ema`` or ``swa``.
        patience: epochs without a better score after which training ends.
        layer_decay: factor on the learning rate per block of the backbone, counted from the head.
        freeze_epochs: epochs in which only the head learns.
        gradient_checkpointing: compute the backbone's inner maps again for the gradient instead of keeping them.
        channels_last: NHWC in memory.
        cache_features: keep the features of a backbone that never learns on disk.
        snapshots: how often weights are kept in the second half of the training.
        seconds: time that the training may take; the schedule then ends with the time.
        machine: what it runs on.
    """

    epochs: int
    learning_rate: float | None
    backbone_share: float
    batch_size: int | None
    weight_decay: float
    augment: str
    precision: str
    freeze_statistics: bool
    seed: int
    averaging: str = "none"
    patience: int | None = None
    layer_decay: float = 1.0
    freeze_epochs: int = 0
    gradient_checkpointing: bool = False
    channels_last: bool = True
    cache_features: bool = False
    snapshots: int = 0
    seconds: float | None = None
    machine: Machine = Machine()
