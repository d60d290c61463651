"""Weights in local files: find them, read them, and check whether they fit."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from densemble.errors import WeightsError
from densemble.input_files import expanded, open_regular

WEIGHTS_DIR_VARIABLE = "DENSEMBLE_WEIGHTS_DIR"
SUFFIXES = (".safetensors", ".pth", ".pt")
HUB = "hf-hub:"
MIN_COVERAGE = 0.9
"""Smallest share of a network's tensors that weights must contain."""


def is_file_name(weights: str) -> bool:
    """Whether ``weights`` is a file name, not a tag or hub id: it has a known extension or a path separator."""
    if weights.startswith(HUB):
        return False
    return weights.endswith(SUFFIXES) or "/" in weights or os.sep in weights


def named_file(weights: str | Path) -> Path | None:
    """The file that ``weights`` names; ``None`` for a tag or hub id."""
    return expanded(weights) if isinstance(weights, Path) or is_file_name(weights) else None


def tagged(name: str, tag: str) -> str:
    """timm's name ``ARCHITECTURE.TAG`` for ``timm/ARCHITECTURE`` and a tag."""
    plain = name.removeprefix("timm/")
    architecture = plain.split(".")[0]
    return plain if tag == "DEFAULT" else f"{architecture}.{tag.removeprefix(f'{architecture}.')}"


def find_local(stems: list[str], weights_dir: str | Path | None) -> Path | None:
    """First existing ``STEM.safetensors`` / ``.pth`` / ``.pt`` in ``weights_dir`` (or ``$DENSEMBLE_WEIGHTS_DIR``).

    Raises:
        WeightsError: the folder does not exist.
    """
    location = weights_dir if weights_dir is not None else os.environ.get(WEIGHTS_DIR_VARIABLE)
    if not location:
        return None
    folder = expanded(location)
    if not folder.is_dir():
        raise WeightsError(f"weights_dir '{folder}' is not a folder; create it or leave weights_dir out")
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or ``.pth`` file by name, without executing code from the file.

    Raises:
        WeightsError: the file does not exist, is damaged, or is not a dictionary of tensors.
    """
    try:
        with open_regular(path) as file:
            file.read(1)
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(
            f"no weights file at '{path}' ({reason}); give the path of a .safetensors or .pth file"
        ) from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError) as error:
        raise WeightsError(f"cannot read weights '{path}': {error}; download or copy the file again") from error
    except Exception as error:  # torch.load raises errors of pickle, whose classes differ between versions
        raise WeightsError(
            f"'{path}' does not contain only tensors ({type(error).__name__}: {str(error)[:200]}); "
            "save only model.state_dict(), preferably as .safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"'{path}' does not contain a dictionary of tensors; save model.state_dict() and give that file"
        )
    return state


def _first_names(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def load_checked(
    network: nn.Module, state: dict[str, Tensor], known: set[str], source: str, allow_partial: bool = False
) -> str:
    """Load ``state`` into ``network`` and report what was loaded.

    Args:
        network: the truncated backbone; its keys are those of the classifier.
        state: tensors by the keys of the classifier; keys after the cut may be missing.
        known: all keys of the whole classifier; any other key is an error, because it indicates a wrong file.
        source: origin of the tensors, for messages.
        allow_partial: load the tensors that fit, however few they are.

    Returns:
        One line with the number of loaded tensors and the names of those that were not loaded.

    Raises:
        WeightsError: less than ``MIN_COVERAGE`` of the tensors up to the cut exist, or some are unknown to the
            network or have a wrong shape.
    """
    current = network.state_dict()
    optional = {key for key in current if key.endswith("num_batches_tracked")}
    required = [key for key in current if key not in optional]
    missing = sorted(key for key in required if key not in state)
    unexpected = sorted(set(state) - known - set(current))
    misshapen = sorted(key for key in current if key in state and current[key].shape != state[key].shape)
    fitting = {key: state[key] for key in current if key in state and key not in misshapen}
    problems = []
    if len(missing) > (1 - MIN_COVERAGE) * len(required):
        problems.append(f"{len(missing)} of {len(required)} tensors are missing ({_first_names(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown to the network ({_first_names(unexpected)})")
    if misshapen:
        key = misshapen[0]
        shapes = f"{key} is {tuple(state[key].shape)}, needed {tuple(current[key].shape)}"
        problems.append(f"{len(misshapen)} have another shape ({shapes})")
    if problems and not (allow_partial and fitting):
        raise WeightsError(
            f"weights '{source}' do not fit: {'; '.join(problems)}; check that the file belongs to this architecture; "
            "if it does, load what fits with allow_partial"
        )
    network.load_state_dict({**current, **fitting})
    line = f"loaded {len(fitting)}/{len(current)} tensors from {source}"
    random = [*missing, *misshapen]
    line += f"; left at random: {_first_names(random)}" if random else ""
    return line + (f"; {len(unexpected)} not known to the network: {_first_names(unexpected)}" if unexpected else "")
