"""run.yaml as pydantic models: the settings of one run, checked, with the nearest name for a misspelt key."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from densemble.errors import ConfigError, UsageError
from densemble.shapes import parse_size

AugmentName = Literal["none", "light", "strong"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
AveragingName = Literal["none", "ema", "swa"]
SEVEN = ("alexnet", "densenet201", "inception_v3", "resnet152", "squeezenet1_1", "vgg19_bn", "resdeconv")
COPIED = re.compile(r"(?P<backbone>.+)\*(?P<copies>\d+)")
"""``resnet18*5``: five members."""


def _read_size(value: Any) -> Any:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from error


SizeField = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_read_size)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingConfig(_Strict):
    """How members are trained; a member may override each value for itself."""

    epochs: PositiveInt = 12
    learning_rate: PositiveFloat | Literal["auto"] = Field(
        1e-3, description="peak learning rate of the head; auto: found by a range test"
    )
    backbone_learning_rate: PositiveFloat | None = Field(
        None, description="peak learning rate of a pretrained backbone; default a fifth of the head's"
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        8, description="pictures per step; auto: as many as fit, up to 32 on a GPU and 8 on a CPU"
    )
    weight_decay: float = Field(1e-4, ge=0)
    augment: AugmentName = "light"
    precision: PrecisionName = "auto"
    averaging: AveragingName = Field(
        "none", description="average weights over steps (ema) or over the last quarter of the epochs (swa)"
    )
    patience: PositiveInt | None = Field(None, description="epochs without a better score after which training ends")
    freeze_statistics: bool | None = Field(
        None, description="keep the backbone's batch normalization statistics; default: where it is pretrained"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate per block of the backbone, from its end to its start"
    )
    freeze_epochs: int = Field(0, ge=0, description="epochs in which only the head learns")
    gradient_checkpointing: bool = Field(
        False, description="compute features twice instead of keeping them: less memory"
    )
    channels_last: bool = Field(True, description="keep tensors as NHWC in memory, which is faster on most hardware")
    cache_features: bool = Field(
        False, description="compute a frozen backbone's features once and keep them on disk; needs augment: none"
    )
    snapshots: int = Field(
        0, ge=0, description="weights kept from the second half of the training, as further candidates"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _cacheable(self) -> "TrainingConfig":
        require_cacheable(self)
        return self


def require_cacheable(settings: "TrainingConfig") -> None:
    """Features can be kept only where they do not change.

    Raises:
        ValueError: the backbone learns in some epoch, or pictures change from epoch to epoch.
    """
    if not settings.cache_features:
        return
    problems = []
    if settings.freeze_epochs < settings.epochs:
        problems.append(f"a backbone that never learns: set freeze_epochs to epochs ({settings.epochs})")
    if settings.augment != "none":
        problems.append("pictures that do not change: set augment to none")
    if problems:
        raise ValueError(f"cache_features needs {' and '.join(problems)}")


class MemberConfig(_Strict):
    """One member: which backbone, where it is cut, which head, and its own training settings."""

    backbone: str
    copies: PositiveInt = Field(1, description="members of this kind, each with its own seed and name")
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]+$")
    cut: str = "auto"
    min_size: SizeField | None = None
    max_stride: PositiveFloat | None = None
    max_macs: PositiveFloat | None = None
    head: str | None = None
    weights: str | None = "DEFAULT"
    allow_partial: bool = False
    input_size: SizeField | None = None
    epochs: PositiveInt | None = None
    learning_rate: PositiveFloat | Literal["auto"] | None = None
    backbone_learning_rate: PositiveFloat | None = None
    batch_size: PositiveInt | Literal["auto"] | None = None
    weight_decay: float | None = Field(None, ge=0)
    augment: AugmentName | None = None
    precision: PrecisionName | None = None
    averaging: AveragingName | None = None
    patience: PositiveInt | None = None
    freeze_statistics: bool | None = None
    layer_decay: float | None = Field(None, gt=0, le=1)
    freeze_epochs: int | None = Field(None, ge=0)
    gradient_checkpointing: bool | None = None
    channels_last: bool | None = None
    cache_features: bool | None = None
    snapshots: int | None = Field(None, ge=0)
    seed: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        values = {"backbone": value} if isinstance(value, str) else value
        if not isinstance(values, dict) or not (copied := COPIED.fullmatch(str(values.get("backbone")))):
            return values
        if "copies" in values:
            raise ValueError(f"'{copied[0]}' says how many copies, and 'copies' says so again; keep one of them")
        return {**values, "backbone": copied["backbone"], "copies": int(copied["copies"])}

    def training(self, common: TrainingConfig) -> TrainingConfig:
        """The run's training settings with this member's own ones on top."""
        own = {key: getattr(self, key) for key in TrainingConfig.model_fields}
        return common.model_copy(update={key: value for key, value in own.items() if value is not None})

    def spread(self, seed: int) -> "list[MemberConfig]":
        """Its copies as members of their own, numbered, with seeds counted up from its own, or from ``seed``.

        The same network trained from several seeds: deep ensembles (Lakshminarayanan et al. 2017).
        """
        if self.copies == 1:
            return [self]
        first = seed if self.seed is None else self.seed
        return [
            self.model_copy(update={"copies": 1, "seed": first + number, "name": name})
            for number, name in enumerate(_numbered(self.name, self.copies))
        ]


def _numbered(name: str | None, count: int) -> list[str | None]:
    """``name``, ``name-2``, ...; members without a name of their own are numbered with all others of their kind."""
    return [name, *(name and f"{name}-{number}" for number in range(2, count + 1))]


def _as_label(value: Any) -> Any:
    """Keys of JSON are text."""
    return int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() else value


Label = Annotated[int | str, BeforeValidator(_as_label)]


class DataConfig(_Strict):
    """How pictures and maps are found, split and read."""

    classes: list[str] | None = Field(None, description="class names; default what the folder says, else counted")
    ignore_index: int | None = Field(
        None, description="label that is neither trained on nor scored; default the format's, else 255"
    )
    label_map: dict[Label, Label] | None = Field(None, description="label or its name -> class number or name")
    color_map: str | dict[str, list[int] | list[list[int]] | str] | None = Field(
        None, description="colours of a colour-coded mask: a file, or class name -> [red, green, blue] or '#rrggbb'"
    )
    scale: PositiveFloat = Field(1.0, description="float targets are multiplied by this when read")
    invalid_below: float | Literal["auto"] | None = Field(
        "auto", description="values up to this one are invalid; null: none; auto: 0 for depth, none for regression"
    )
    unit: str = Field("", description="of the values, after the scale; for instance m")
    heatmap: Literal["keypoints", "density"] = Field("keypoints", description="what a heatmap's maps or points are")
    sigma: float = Field(0.015, gt=0, le=0.5, description="spread of a drawn point, as a share of the diagonal")
    bands: list[int] | None = Field(None, description="channels of the pictures that are used, counted from 0")
    heat_max: PositiveFloat | dict[str, PositiveFloat] | None = Field(
        None, description="value of saliency and heatmaps that becomes 1; default: decided from all maps, and kept here"
    )
    image_range: tuple[float, float] | None = Field(
        None, description="values of 16-bit and float pictures that become 0 and 1"
    )
    exif: Literal["auto", "image", "both", "ignore"] = Field(
        "auto", description="what a picture's EXIF orientation turns; auto: the map too where only that makes it fit"
    )
    resize_targets: bool = Field(False, description="resize maps of another size to their picture's")
    absent_is_empty: bool = Field(False, description="a class without a mask file for a picture is nowhere in it")
    skip_unpaired: bool = Field(False, description="leave out pictures without a map, and maps without a picture")
    leave_out: list[str] | str | None = Field(None, description="names or patterns left out, or a file of them")
    val_fraction: float = Field(0.2, gt=0, lt=1, description="share of validation pairs where DATA has no split")
    test_fraction: float = Field(0.0, ge=0, lt=1, description="share of test pairs where DATA has no split")
    group_by: str | None = Field(None, description="expression whose match in a name is its group; or: folder")
    stratify: bool = Field(False, description="split so that every part holds the same share of each class")
    folds: int | None = Field(None, ge=2, description="number of folds for cross-validation")
    fold: int = Field(0, ge=0, description="the fold that is held out for validation")
    seed: int = 0


class TrainerConfig(_Strict):
    """The machine: flags of Lightning's Trainer, workers, loggers."""

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    deterministic: bool = False
    workers: int | None = Field(None, ge=0, description="processes that load pictures; default 0 on CPU, 4 on a GPU")
    loggers: list[Literal["tensorboard", "mlflow", "wandb"]] = []
    cache_dir: str | None = Field(None, description="folder of decoded images; default RUN/cache")
    keep_checkpoints: bool = Field(False, description="keep last.ckpt and RUN/cache when the run is complete")


class RunConfig(_Strict):
    """Everything that one run is made of."""

    task: str
    preset: Literal["fast", "balanced", "best"] | None = None
    loss: str = Field("", description="of the task's losses, joined by +; default the task's own")
    class_weights: Literal["balanced"] | list[PositiveFloat] | None = None
    input_size: SizeField = (240, 320)
    out_size: SizeField | None = None
    training: TrainingConfig = TrainingConfig()
    data: DataConfig = DataConfig()
    trainer: TrainerConfig = TrainerConfig()
    weights_dir: str | None = None
    members: list[MemberConfig] = Field(default_factory=lambda: [MemberConfig(backbone=name) for name in SEVEN])

    @field_validator("members")
    @classmethod
    def _spread(cls, members: list[MemberConfig], info: ValidationInfo) -> list[MemberConfig]:
        training: TrainingConfig = info.data.get("training", TrainingConfig())
        return [copy for member in members for copy in member.spread(training.seed)]

    @model_validator(mode="after")
    def _own_names(self) -> "RunConfig":
        if not self.members:
            raise ValueError("members is empty; name at least one backbone")
        names = [member.name for member in self.members if member.name]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two members are named '{doubled[0]}'; give each its own name")
        for member in self.members:
            require_cacheable(member.training(self.training))
        return self

    def member_names(self) -> list[str]:
        """One name per member: its own, or its backbone's, numbered where a backbone occurs twice."""
        names: list[str] = []
        for member in self.members:
            plain = member.name or re.sub(
                r"[^A-Za-z0-9_-]", "_", member.backbone.removeprefix("timm/").replace("/", "-")
            )
            name, count = plain, 2
            while name in names:
                name, count = f"{plain}-{count}", count + 1
            names.append(name)
        return names

    def to_yaml(self) -> str:
        """The text of a run.yaml that gives this configuration again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_config(path: Path) -> dict[str, Any]:
    """The raw mapping of a YAML file.

    Raises:
        ConfigError: absent, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config '{path}': {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config '{path}' holds no keys; start from examples/all7models/run.yaml")
    return values


def make_config(values: dict[str, Any], source: str = "the settings") -> RunConfig:
    """A checked configuration from plain values.

    Raises:
        ConfigError: names every unknown key with the nearest known one, and every wrong value.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [_explain(dict(item)) for item in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from error


def _explain(item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key '{place}'; {_hint(item['loc'])}"
    if item["type"] == "missing":
        return f"'{place}' is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"'{place}' = {item['input']!r}: {message}" if place else message


def _hint(location: tuple[Any, ...]) -> str:
    """What an unknown key may have been: one of another section, or one of nearly that name."""
    models: dict[str, type[BaseModel]] = {
        "": RunConfig, "training": TrainingConfig, "data": DataConfig, "trainer": TrainerConfig,
        "members": MemberConfig,
    }  # fmt: skip
    key, own = str(location[-1]), models.get(str(location[0]) if len(location) > 1 else "", RunConfig).model_fields
    names = dict.fromkeys([*own, *(name for model in models.values() for name in model.model_fields)])
    near = [key] if key in names else difflib.get_close_matches(key, own, 1) or difflib.get_close_matches(key, names, 1)
    if not near:
        return f"known are: {', '.join(own)}"
    sections = [""] if near[0] in own else [name for name, model in models.items() if near[0] in model.model_fields]
    paths = [f"{name}.{near[0]}".lstrip(".") for name in sections if name != "members" or len(sections) == 1]
    return "did you mean " + " or ".join(f"'{path.replace('members.', 'members.0.')}'" for path in paths) + "?"
