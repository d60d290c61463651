"""Data options: how images and targets are found, split and read. Each is written down here once."""

from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, PositiveFloat, with_config
from typing_extensions import TypedDict


def _as_label(value: Any) -> Any:
    """Keys of JSON are text."""
    return int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() else value


Label = Annotated[int | str, BeforeValidator(_as_label)]
LabelMap = Mapping[Label, Label]
ColourNames = Mapping[str, list[int] | list[list[int]] | str]
HeatMax = PositiveFloat | Mapping[str, PositiveFloat]
"""For all targets, or by type of their numbers: uint8, uint16, float, ..."""
ExifUse = Literal["auto", "image", "both", "ignore"]


class ReadingOptions(TypedDict, total=False):
    """How files become images and targets; an ensemble keeps them for other folders of the same kind."""

    label_map: Annotated[LabelMap | None, Field(None, description="label or its name -> class number or name")]
    scale: Annotated[PositiveFloat, Field(1.0, description="float targets are multiplied by this when read")]
    unit: Annotated[str, Field("", description="of the values, after the scale; for instance m")]
    heatmap: Annotated[Literal["keypoints", "density"], Field("keypoints", description="what heatmaps or points are")]
    sigma: Annotated[float, Field(0.015, gt=0, le=0.5, description="spread of a point as a share of the diagonal")]
    bands: Annotated[list[int] | None, Field(None, description="image channels that are used, counted from 0")]
    heat_max: Annotated[HeatMax | None, Field(None, description="saliency or heat that becomes 1; default: from all")]
    image_range: Annotated[
        tuple[float, float] | None, Field(None, description="values of 16-bit and float images that become 0 and 1")
    ]
    exif: Annotated[ExifUse, Field("auto", description="what EXIF turns; auto: targets too, if only then they fit")]
    resize_targets: Annotated[bool, Field(False, description="resize targets of another size to their image's")]
    absent_is_empty: Annotated[bool, Field(False, description="a class without a mask file for an image is not in it")]


class SplitOptions(TypedDict, total=False):
    """How pairs are split where the folder has no split; ``folds`` splits again what the folder holds."""

    val_fraction: Annotated[float, Field(0.2, gt=0, lt=1, description="share of validation pairs, without folds")]
    test_fraction: Annotated[float, Field(0.0, ge=0, lt=1, description="share of test pairs")]
    group_by: Annotated[
        str | None,
        Field(None, description="expression whose first group, or match, in a name is its group; or: folder"),
    ]
    stratify: Annotated[bool, Field(False, description="every part holds the same share of each class")]
    folds: Annotated[int | None, Field(None, ge=2, description="number of folds; all have the same test part")]
    fold: Annotated[int, Field(0, ge=0, description="the fold that is held out for validation")]
    seed: Annotated[int, Field(0, description="another one gives another split")]


@with_config(ConfigDict(extra="forbid"))
class DataOptions(ReadingOptions, SplitOptions, total=False):
    """The section ``data`` of run.yaml, and the keyword arguments of ``FolderData``."""

    classes: Annotated[list[str] | None, Field(None, description="names in order; default the folder's, else counted")]
    ignore_index: Annotated[
        int | None, Field(None, description="label not trained on or scored; default the format's, else 255 or 65535")
    ]
    color_map: Annotated[
        str | ColourNames | None,
        Field(None, description="colours of masks: a file, or class -> [r, g, b] or '#rrggbb'"),
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
    """The part about reading."""
    return cast(ReadingOptions, {name: value for name, value in options.items() if name in READING})


def keyword_parameters() -> list[Parameter]:
    """The options as parameters of a function that takes them as keyword arguments."""
    return [Parameter(n, Parameter.KEYWORD_ONLY, default=hint.__metadata__[-1].default) for n, hint in _HINTS.items()]


def described() -> str:
    """One line of a docstring per option."""
    return "\n".join(f"        {name}: {hint.__metadata__[-1].description}." for name, hint in _HINTS.items())
