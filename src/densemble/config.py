"""run.yaml as pydantic models: the settings of one run, checked, with the nearest name for a misspelt key."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from densemble.data_options import DataOptions
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


class TrainingOptions(_Strict):
    """How members are trained; a section of run.yaml, and keys of each member that has values of its own."""

    epochs: PositiveInt = 12
    learning_rate: PositiveFloat | Literal["auto"] = Field(
        1e-3, description="peak learning rate of the head; auto: found by a range test"
    )
    backbone_learning_rate: PositiveFloat | None = Field(
        None, description="peak learning rate of a pretrained backbone; default a fifth of the head's"
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        8, description="images per step; auto: as many as fit, up to 32 on a GPU and 8 on a CPU"
    )
    weight_decay: float = Field(1e-4, ge=0, description="of AdamW")
    augment: AugmentName = "light"
    precision: PrecisionName = Field("auto", description="of the computation; weights are float32 in all of them")
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
    seed: int = Field(0, description="of weights, order and augmentation")


class TrainingConfig(TrainingOptions):
    """Complete training options, checked together."""

    @model_validator(mode="after")
    def _cacheable(self) -> "TrainingConfig":
        require_cacheable(self)
        return self


def require_cacheable(settings: TrainingOptions) -> None:
    """Features can be kept only where they do not change.

    Raises:
        ValueError: the backbone learns in some epoch, or images change from epoch to epoch.
    """
    if not settings.cache_features:
        return
    problems = []
    if settings.freeze_epochs < settings.epochs:
        problems.append(f"a backbone that never learns: set freeze_epochs to epochs ({settings.epochs})")
    if settings.augment != "none":
        problems.append("images that do not change: set augment to none")
    if problems:
        raise ValueError(f"cache_features needs {' and '.join(problems)}")


class MemberConfig(TrainingOptions):
    """One member: which backbone, where it is cut, which head, and its own training options.

    A training option that the member does not set has its default here, and the run's value in :meth:`training`.
    """

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

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        values = {"backbone": value} if isinstance(value, str) else value
        if not isinstance(values, dict):
            return values
        values = {k: v for k, v in values.items() if v is not None or k not in TrainingOptions.model_fields}
        if not (copied := COPIED.fullmatch(str(values.get("backbone")))):
            return values
        if "copies" in values:
            raise ValueError(f"'{copied[0]}' says how many copies, and 'copies' says so again; keep one of them")
        return {**values, "backbone": copied["backbone"], "copies": int(copied["copies"])}

    @model_serializer(mode="wrap")
    def _unset_as_null(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The member's own fields first; training options that it does not set are null."""
        values: dict[str, Any] = serialize(self)
        options = {name: values.pop(name) for name in TrainingOptions.model_fields}
        return values | {name: value if name in self.model_fields_set else None for name, value in options.items()}

    def training(self, common: TrainingConfig) -> TrainingConfig:
        """The run's training options, replaced by those that this member sets."""
        own = self.model_fields_set & TrainingOptions.model_fields.keys()
        return common.model_copy(update={name: getattr(self, name) for name in own})

    def spread(self, seed: int) -> "list[MemberConfig]":
        """Its copies as members of their own, numbered, with seeds counted up from its own, or from ``seed``.

        The same network trained from several seeds: deep ensembles (Lakshminarayanan et al. 2017).
        """
        if self.copies == 1:
            return [self]
        first = self.seed if "seed" in self.model_fields_set else seed
        return [
            self.model_copy(update={"copies": 1, "seed": first + number, "name": name})
            for number, name in enumerate(_numbered(self.name, self.copies))
        ]


def _numbered(name: str | None, count: int) -> list[str | None]:
    """``name``, ``name-2``, ...; members without a name of their own are numbered with all others of their kind."""
    return [name, *(name and f"{name}-{number}" for number in range(2, count + 1))]


class TrainerConfig(_Strict):
    """The machine: flags of Lightning's Trainer, workers, loggers."""

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    deterministic: bool = False
    workers: int | None = Field(None, ge=0, description="processes that load images; default 0 on CPU, 4 on a GPU")
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
    data: DataOptions = Field(default_factory=lambda: DataOptions(), validate_default=True)
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
        raise ConfigError(f"{source}: {_explained(error)}") from error


def make_data_options(given: DataOptions) -> DataOptions:
    """Checked data options, complete with defaults.

    Raises:
        ConfigError: as :func:`make_config`.
    """
    try:
        return _DATA_OPTIONS.validate_python(given)
    except ValidationError as error:
        raise ConfigError(_explained(error, "data")) from error


_DATA_OPTIONS = TypeAdapter(DataOptions)


def _explained(error: ValidationError, *section: str) -> str:
    return "; ".join(_explain({**item, "loc": (*section, *item["loc"])}) for item in error.errors())


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
    known: dict[str, Any] = {
        "": RunConfig.model_fields, "training": TrainingConfig.model_fields, "data": get_type_hints(DataOptions),
        "trainer": TrainerConfig.model_fields, "members": MemberConfig.model_fields,
    }  # fmt: skip
    key, own = str(location[-1]), known.get(str(location[0]) if len(location) > 1 else "", known[""])
    names = dict.fromkeys([*own, *(name for fields in known.values() for name in fields)])
    near = [key] if key in names else difflib.get_close_matches(key, own, 1) or difflib.get_close_matches(key, names, 1)
    if not near:
        return f"known are: {', '.join(own)}"
    sections = [""] if near[0] in own else [name for name, fields in known.items() if near[0] in fields]
    paths = [f"{name}.{near[0]}".lstrip(".") for name in sections if name != "members" or len(sections) == 1]
    return "did you mean " + " or ".join(f"'{path.replace('members.', 'members.0.')}'" for path in paths) + "?"
