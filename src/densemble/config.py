"""Validated settings of a run (run.yaml) as pydantic models; errors suggest the nearest name for an unknown key."""

import difflib
import re
from collections import Counter
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
from densemble.errors import ConfigError, UsageError, did_you_mean
from densemble.shapes import parse_size
from densemble.untrusted import MOST_YAML_BYTES, Unreadable, decoded, excerpt, parse_yaml, read_regular
from densemble.user_code import importable_name

AugmentName = Literal["none", "light", "strong"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
AveragingName = Literal["none", "ema", "swa"]
SEVEN = ("alexnet", "densenet201", "inception_v3", "resnet152", "squeezenet1_1", "vgg19_bn", "resdeconv")
MOST_MEMBERS = 500
"""Largest number of members of a run, counting copies."""
COPIED = re.compile(r"(?P<backbone>.+)\*(?P<copies>\d+)")
"""``resnet18*5`` stands for five members."""


def _read_size(value: Any) -> Any:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from error


_SizeText = Annotated[str, Field(pattern=r"^\s*[1-9]\d*\s*[xX]\s*[1-9]\d*\s*$")]
SizeField = Annotated[
    tuple[PositiveInt, PositiveInt],
    BeforeValidator(_read_size, json_schema_input_type=_SizeText | tuple[PositiveInt, PositiveInt]),
]


def _name_part(value: Any, info: ValidationInfo) -> Any:
    """Return the name of a class or function of the user, given as an object."""
    try:
        return importable_name(value, str(info.field_name)) if callable(value) else value
    except UsageError as error:
        raise ValueError(str(error)) from error


NamedPart = Annotated[str, BeforeValidator(_name_part)]
"""A name; in Python also a class or function of the user, which is stored by its name ``package.module:NAME``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingOptions(_Strict):
    """Training options: the section ``training`` of run.yaml, and keys of each member that overrides them."""

    epochs: PositiveInt = 12
    learning_rate: PositiveFloat | Literal["auto"] = Field(
        1e-3, description="peak learning rate of the head; auto: determined by a range test"
    )
    backbone_learning_rate: PositiveFloat | None = Field(
        None, description="peak learning rate of a pretrained backbone; default: one fifth of the head's"
    )
    batch_size: PositiveInt | Literal["auto"] = Field(
        8, description="images per step; auto: the most that fit, up to 32 on a GPU and 8 on a CPU"
    )
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of AdamW")
    augment: AugmentName = "light"
    precision: PrecisionName = Field("auto", description="precision of the computation; weights are always float32")
    averaging: AveragingName = Field(
        "none", description="average weights over steps (ema) or over the last quarter of the epochs (swa)"
    )
    patience: PositiveInt | None = Field(None, description="stop after this number of epochs without a better score")
    freeze_statistics: bool | None = Field(
        None, description="freeze the backbone's batch normalization statistics; default: if it is pretrained"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate per block of the backbone, from the last to the first"
    )
    freeze_epochs: int = Field(0, ge=0, description="first epochs, in which only the head is trained")
    gradient_checkpointing: bool = Field(
        False, description="save memory: compute features again in the backward pass instead of keeping them"
    )
    channels_last: bool = Field(True, description="use the NHWC memory format, which is faster on most hardware")
    cache_features: bool = Field(
        False, description="compute a frozen backbone's features once and cache them on disk; needs augment: none"
    )
    snapshots: int = Field(
        0, ge=0, description="number of weights saved in the second half of the training, as more candidates"
    )
    seed: int = Field(0, description="seed of weights, order and augmentation")


class TrainingConfig(TrainingOptions):
    """Complete training options, validated together."""

    @model_validator(mode="after")
    def _validate(self) -> "TrainingConfig":
        require_cacheable(self)
        return self


def require_cacheable(settings: TrainingOptions) -> None:
    """Check that the features stay the same in all epochs if they are cached.

    Raises:
        ValueError: the backbone is trained, or images are augmented.
    """
    if not settings.cache_features:
        return
    problems = []
    if settings.freeze_epochs < settings.epochs:
        problems.append(f"a frozen backbone: set freeze_epochs to epochs ({settings.epochs})")
    if settings.augment != "none":
        problems.append("images without augmentation: set augment to none")
    if problems:
        raise ValueError(f"cache_features needs {' and '.join(problems)}")


class MemberConfig(TrainingOptions):
    """Settings of one member: backbone, cut, head and training options.

    Training options that the member does not set have defaults here; :meth:`training` takes them from the run.
    """

    backbone: str
    copies: PositiveInt = Field(1, description="number of members like this one, each with a different seed and name")
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]+$")
    cut: str = "auto"
    min_size: SizeField | None = None
    max_stride: PositiveFloat | None = None
    max_macs: PositiveFloat | None = None
    head: NamedPart | None = Field(None, description="row of HEADS, or package.module:NAME of a class or function")
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
            raise ValueError(f"'{copied[0]}' and 'copies' both set the number of copies; keep one of them")
        return {**values, "backbone": copied["backbone"], "copies": int(copied["copies"])}

    @model_serializer(mode="wrap")
    def _unset_as_null(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize training options last; those that the member does not set are null."""
        values: dict[str, Any] = serialize(self)
        options = {name: values.pop(name) for name in TrainingOptions.model_fields}
        return values | {name: value if name in self.model_fields_set else None for name, value in options.items()}

    def training(self, common: TrainingConfig) -> TrainingConfig:
        """Return the run's training options, overridden by those that this member sets."""
        overrides = self.model_fields_set & TrainingOptions.model_fields.keys()
        return common.model_copy(update={name: getattr(self, name) for name in overrides})

    def expand_copies(self, seed: int) -> "list[MemberConfig]":
        """Return the copies as separate members, with numbered names and consecutive seeds.

        The seeds start at the member's seed if it sets one, else at ``seed``. One network trained from several seeds
        gives a deep ensemble (Lakshminarayanan et al. 2017).
        """
        if self.copies == 1:
            return [self]
        first = self.seed if "seed" in self.model_fields_set else seed
        return [
            self.model_copy(update={"copies": 1, "seed": first + index, "name": name})
            for index, name in enumerate(_copy_names(self.name, self.copies))
        ]


def _copy_names(name: str | None, count: int) -> list[str | None]:
    """Return ``name``, ``name-2``, ...; unnamed copies get their names in :meth:`RunConfig.member_names`."""
    return [name, *(name and f"{name}-{number}" for number in range(2, count + 1))]


class TrainerConfig(_Strict):
    """Settings of the machine: flags of Lightning's Trainer, workers, loggers."""

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    deterministic: bool = False
    workers: int | None = Field(None, ge=0, description="processes that load images; default: a thread; a GPU augments")
    loggers: list[Literal["tensorboard", "mlflow", "wandb"]] = []
    cache_dir: str | None = Field(None, description="folder of decoded images; default: RUN/cache")
    keep_checkpoints: bool = Field(False, description="keep checkpoints and RUN/cache when the run is complete")
    isolated: bool | None = Field(
        None, description="train each member in a separate process; default: on Linux, unless objects prevent it"
    )
    timeout: PositiveFloat | None = Field(
        1800.0, description="seconds without a finished batch after which a member in its own process fails; null: none"
    )

    @property
    def has_one_device(self) -> bool:
        """Whether ``devices`` selects a single device."""
        return self.devices in (1, "1") or (isinstance(self.devices, list) and len(self.devices) == 1)


class RunConfig(_Strict):
    """All settings of a run."""

    task: str
    preset: Literal["fast", "balanced", "best"] | None = None
    loss: NamedPart = Field(
        "", description="losses of the task or package.module:NAME, joined by +; default: the task's default loss"
    )
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
    def _expand(cls, members: list[MemberConfig], info: ValidationInfo) -> list[MemberConfig]:
        count = sum(member.copies for member in members)
        if count > MOST_MEMBERS:
            raise ValueError(f"{count} members, more than {MOST_MEMBERS}; split them into several runs")
        training: TrainingConfig = info.data.get("training", TrainingConfig())
        return [copy for member in members for copy in member.expand_copies(training.seed)]

    @model_validator(mode="after")
    def _validate(self) -> "RunConfig":
        if not self.members:
            raise ValueError("members is empty; name at least one backbone")
        repeated = sorted(name for name, count in Counter(m.name for m in self.members if m.name).items() if count > 1)
        if repeated:
            raise ValueError(f"two members are named '{repeated[0]}'; give them different names")
        for member in self.members:
            require_cacheable(member.training(self.training))
        return self

    def member_names(self) -> list[str]:
        """Return one name per member: its name, or that of its backbone, numbered if a backbone occurs twice."""
        names: dict[str, None] = {}
        for member in self.members:
            base = member.name or re.sub(
                r"[^A-Za-z0-9_-]", "_", member.backbone.removeprefix("timm/").replace("/", "-")
            )
            name, count = base, 2
            while name in names:
                name, count = f"{base}-{count}", count + 1
            names[name] = None
        return list(names)

    def to_yaml(self) -> str:
        """Return the text of a run.yaml that gives the same configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_config(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, without validation.

    Raises:
        ConfigError: the file is absent, not YAML, or not a mapping.
    """
    try:
        text = decoded(read_regular(path, MOST_YAML_BYTES))
    except (OSError, Unreadable) as error:
        raise ConfigError(f"cannot read config '{path}': {getattr(error, 'strerror', None) or error}") from error
    try:
        values = parse_yaml(text)
    except Unreadable as error:
        raise ConfigError(f"config '{path}' is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config '{path}' holds no keys; start from examples/all7models/run.yaml")
    return values


def make_config(values: dict[str, Any], source: str = "the settings") -> RunConfig:
    """Validate plain values and return the configuration.

    Raises:
        ConfigError: unknown keys or wrong values; the message names them, with the nearest known keys.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_describe(error)}") from error


def make_data_options(options: DataOptions) -> DataOptions:
    """Validate data options and fill in the defaults.

    Raises:
        ConfigError: unknown keys or wrong values.
    """
    try:
        return _DATA_OPTIONS.validate_python(options)
    except ValidationError as error:
        raise ConfigError(_describe(error, "data")) from error


_DATA_OPTIONS = TypeAdapter(DataOptions)
_MOST_ERRORS = 20
"""Number of wrong keys in a message."""


def _describe(error: ValidationError, *section: str) -> str:
    items = error.errors(include_url=False)
    shown = [_describe_item({**item, "loc": (*section, *item["loc"])}) for item in items[:_MOST_ERRORS]]
    return "; ".join([*shown, *([f"and {len(items) - _MOST_ERRORS} more"] if len(items) > _MOST_ERRORS else [])])


def _describe_item(item: dict[str, Any]) -> str:
    key = excerpt(".".join(str(part) for part in item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {_suggest(item['loc'])}"
    if item["type"] == "missing":
        return f"'{key}' is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "literal_error":
        known = re.findall("'([^']+)'", item["ctx"]["expected"])
        message = did_you_mean(str(item["input"]), known) + message
    return f"'{key}' = {excerpt(repr(item['input']))}: {excerpt(message, 600)}" if key else excerpt(message, 600)


def _suggest(location: tuple[Any, ...]) -> str:
    """Suggest known keys for an unknown key: the same key in another section, or a similar key."""
    known: dict[str, Any] = {
        "": RunConfig.model_fields, "training": TrainingConfig.model_fields, "data": get_type_hints(DataOptions),
        "trainer": TrainerConfig.model_fields, "members": MemberConfig.model_fields,
    }  # fmt: skip
    key, same_section = str(location[-1]), known.get(str(location[0]) if len(location) > 1 else "", known[""])
    names = dict.fromkeys([*same_section, *(name for fields in known.values() for name in fields)])
    matches = [key] if key in names else (
        difflib.get_close_matches(key, same_section, 1) or difflib.get_close_matches(key, names, 1)
    )  # fmt: skip
    if not matches:
        return f"known keys: {', '.join(same_section)}"
    match = matches[0]
    sections = [""] if match in same_section else [name for name, fields in known.items() if match in fields]
    paths = [f"{name}.{match}".lstrip(".") for name in sections if name != "members" or len(sections) == 1]
    return "did you mean " + " or ".join(f"'{path.replace('members.', 'members.0.')}'" for path in paths) + "?"
