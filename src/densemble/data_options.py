"""Data options: how images and targets are found, split and read. Each option is defined only here."""

from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, PositiveFloat, with_config
from typing_extensions import TypedDict


def _as_label(value: Any) -> Any:
    """Converts numbers in text to int, because keys of JSON are text."""
    return int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() else value


Label = Annotated[int | str, BeforeValidator(_as_label)]
LabelMap = Mapping[Label, Label]
ColourNames = Mapping[str, list[int] | list[list[int]] | str]
HeatMax = PositiveFloat | Mapping[str, PositiveFloat]
"""One value for all targets, or a value by data type: uint8, uint16, float, ..."""
ExifUse = Literal["auto", "image", "both", "ignore"]


class ReadingOptions(TypedDict, total=False):
    """How files become images and targets; an ensemble stores them for other folders of the same format."""

    label_map: Annotated[LabelMap | None, Field(None, description="class number or name by label or its name")]
    scale: Annotated[PositiveFloat, Field(1.0, description="factor for float targets")]
    unit: Annotated[str, Field("", description="unit of the values after scaling, such as m")]
    heatmap: Annotated[Literal["keypoints", "density"], Field("keypoints", description="meaning of heatmaps or points")]
    sigma: Annotated[float, Field(0.015, gt=0, le=0.5, description="spread of a point as a share of the diagonal")]
    bands: Annotated[list[int] | None, Field(None, description="image channels to use, counted from 0")]
    heat_max: Annotated[HeatMax | None, Field(None, description="heat that becomes 1; default: from all targets")]
    image_range: Annotated[
        tuple[float, float] | None, Field(None, description="values of 16-bit and float images that become 0 and 1")
    ]
    exif: Annotated[ExifUse, Field("auto", description="what EXIF rotates; auto: targets too, if only then they fit")]
    resize_targets: Annotated[bool, Field(False, description="resize targets to the size of their image")]
    absent_is_empty: Annotated[bool, Field(False, description="a missing mask file means that the class is absent")]


class SplitOptions(TypedDict, total=False):
    """How pairs are split if the folder has no splits; ``folds`` splits train and val of the folder again."""

    val_fraction: Annotated[float, Field(0.2, gt=0, lt=1, description="share of validation pairs, without folds")]
    test_fraction: Annotated[float, Field(0.0, ge=0, lt=1, description="share of test pairs")]
    group_by: Annotated[
        str | None,
        Field(None, description="expression whose first group, or match, in a name is its group; or: folder"),
    ]
    stratify: Annotated[bool, Field(False, description="give every part the same share of each class")]
    folds: Annotated[int | None, Field(None, ge=2, description="number of folds; all have the same test part")]
    fold: Annotated[int, Field(0, ge=0, description="fold that is held out for validation")]
    seed: Annotated[int, Field(0, description="seed of the split")]
    val_from_train: Annotated[
        float | None,
        Field(None, gt=0, lt=1, description="without test pairs: val becomes test, this share of train becomes val"),
    ]


@with_config(ConfigDict(extra="forbid"))
class DataOptions(ReadingOptions, SplitOptions, total=False):
    """All data options: the section ``data`` of run.yaml, and the keyword arguments of ``FolderData``."""

    classes: Annotated[list[str] | None, Field(None, description="class names; default: of the folder, else numbers")]
    ignore_index: Annotated[int | None, Field(None, description="ignored label; default: of the format, 255 or 65535")]
    color_map: Annotated[
        str | ColourNames | None,
        Field(None, description="colours of masks: a file, or [r, g, b] or '#rrggbb' by class"),
    ]
    invalid_below: Annotated[
        float | Literal["auto"] | None,
        Field("auto", description="values up to this are invalid; null: none; auto: 0 for depth, else none"),
    ]
    skip_unpaired: Annotated[bool, Field(False, description="leave out images without target, targets without image")]
    leave_out: Annotated[list[str] | str | Path | None, Field(None, description="names or patterns, or their file")]


READING, SPLITTING = tuple(ReadingOptions.__annotations__), tuple(SplitOptions.__annotations__)
_HINTS = get_type_hints(DataOptions, include_extras=True)


def reading_options(options: DataOptions) -> ReadingOptions:
    """The reading options among all data options."""
    return cast(ReadingOptions, {name: value for name, value in options.items() if name in READING})


def keyword_parameters() -> list[Parameter]:
    """The options as keyword-only parameters, for a function signature."""
    return [Parameter(n, Parameter.KEYWORD_ONLY, default=hint.__metadata__[-1].default) for n, hint in _HINTS.items()]


def described() -> str:
    """Docstring text with one line per option."""
    return "\n".join(f"        {name}: {hint.__metadata__[-1].description}." for name, hint in _HINTS.items())
