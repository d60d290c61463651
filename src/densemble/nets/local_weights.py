"""Weights in local files: where they lie, how they are read, whether they fit."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from densemble.errors import WeightsError

WEIGHTS_DIR_VARIABLE = "DENSEMBLE_WEIGHTS_DIR"
SUFFIXES = (".safetensors", ".pth", ".pt")
HUB = "hf-hub:"
ENOUGH = 0.9


def is_file_name(weights: str) -> bool:
    """Whether ``weights`` names a file and not a tag or a hub's id: it ends like one or has a folder in it."""
    if weights.startswith(HUB):
        return False
    return weights.endswith(SUFFIXES) or "/" in weights or os.sep in weights


def tagged(name: str, tag: str) -> str:
    """``ARCHITECTURE.TAG`` of ``timm/ARCHITECTURE``, as timm writes it."""
    plain = name.removeprefix("timm/")
    architecture = plain.split(".")[0]
    return plain if tag == "DEFAULT" else f"{architecture}.{tag.removeprefix(f'{architecture}.')}"


def find_local(stems: list[str], weights_dir: str | Path | None) -> Path | None:
    """First existing ``STEM.safetensors`` / ``.pth`` / ``.pt`` in ``weights_dir`` (or ``$DENSEMBLE_WEIGHTS_DIR``).

    Raises:
        WeightsError: the folder is named but does not exist.
    """
    named = weights_dir if weights_dir is not None else os.environ.get(WEIGHTS_DIR_VARIABLE)
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"weights_dir '{folder}' is not a folder; create it or leave weights_dir out")
    candidates = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` or ``.pth`` file, by name; nothing in the file is executed.

    Raises:
        WeightsError: the file is absent, damaged, or not a dictionary of tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file at '{path}'; give the path of a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError) as error:
        raise WeightsError(f"cannot read weights '{path}': {error}; download or copy the file again") from error
    except Exception as error:  # torch.load raises pickle's own errors, whose classes differ by version
        raise WeightsError(
            f"'{path}' is not a plain file of tensors ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "save model.state_dict() alone, best as .safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"'{path}' holds no dictionary of tensors; save model.state_dict() and give that file")
    return state


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def load_checked(
    network: nn.Module, state: dict[str, Tensor], known: set[str], source: str, allow_partial: bool = False
) -> str:
    """Copies ``state`` into ``network`` and counts.

    Args:
        network: the truncated backbone; its keys are those of the classifier.
        state: tensors by the classifier's own key names; the classifier's part may be absent.
        known: all keys of the whole classifier; a key outside them is an error, for it is a misspelt or a wrong file.
        source: where the tensors came from, for the messages.
        allow_partial: take what fits, however little that is.

    Returns:
        One line that says how many tensors were loaded, and which of them were not.

    Raises:
        WeightsError: less than ``ENOUGH`` of the tensors up to the cut are there, or some are unknown to the network
            or wrongly shaped.
    """
    own = network.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    needed = [key for key in own if key not in optional]
    missing = sorted(key for key in needed if key not in state)
    unexpected = sorted(set(state) - known - set(own))
    misshapen = sorted(key for key in own if key in state and own[key].shape != state[key].shape)
    fitting = {key: state[key] for key in own if key in state and key not in misshapen}
    problems = []
    if len(missing) > (1 - ENOUGH) * len(needed):
        problems.append(f"{len(missing)} of {len(needed)} tensors are missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown to the network ({_some(unexpected)})")
    if misshapen:
        key = misshapen[0]
        shapes = f"{key} is {tuple(state[key].shape)}, needed {tuple(own[key].shape)}"
        problems.append(f"{len(misshapen)} have another shape ({shapes})")
    if problems and not (allow_partial and fitting):
        raise WeightsError(
            f"weights '{source}' do not fit: {'; '.join(problems)}; is it another architecture's file? "
            "If not, take what fits with allow_partial"
        )
    network.load_state_dict({**own, **fitting})
    loaded = len(own) - len(missing) - len(misshapen) - sum(key not in state for key in optional)
    line = f"loaded {loaded}/{len(own)} tensors from {source}"
    left = [*missing, *misshapen]
    line += f"; left at random: {_some(left)}" if left else ""
    return line + (f"; {len(unexpected)} not known to the network: {_some(unexpected)}" if unexpected else "")
