"""Text of the written file: one class per network, the combination as functions, and the class ``Ensemble``."""

import re
from collections.abc import Mapping

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import ViewedMember
from densemble.exporters.python_source.class_text import member_base, member_class, prediction_class
from densemble.exporters.python_source.code import call, class_names, needed, quoted, table
from densemble.exporters.python_source.layer_snippets import LAYERS, without_growing
from densemble.exporters.python_source.rule_text import CombinationText, activation_text, combination_text, snippets_for
from densemble.exporters.python_source.view_text import view_text
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import LICENCE_NOTE
from densemble.versions import __version__

_STANDARD = {
    "copy": "import copy",
    "pairwise": "from itertools import pairwise",
    "Path": "from pathlib import Path",
    "NamedTuple": "from typing import NamedTuple",
}
_THIRD_PARTY = {
    "timm": "import timm",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "load_file": "from safetensors.torch import load_file",
    "nn": "from torch import Tensor, nn",
    "models": "from torchvision import models",
    "create_feature_extractor": "from torchvision.models.feature_extraction import create_feature_extractor",
}
"""Imports by the name that needs them, in the order of ruff's import sorting."""
_RESERVED = ("Ensemble", "Member", "Prediction", "Tensor", "Path", "NamedTuple", "F")
_FITTED = "combine.fitted/"


def python_source(ensemble: Ensemble, module: str) -> str:
    """Return the code of a module that computes the same maps as the ensemble, without densemble.

    Args:
        ensemble: its members have published backbones.
        module: name of the module; the weights are in ``MODULE.safetensors`` beside it.

    Raises:
        UsageError: a part of the ensemble cannot be written as code.
    """
    networks, holders = networks_of(ensemble)
    names = class_names(networks, (*_RESERVED, *LAYERS))
    combination = combination_text(ensemble.combination)
    activation, units = activation_text(ensemble.task)
    members = [member_base(networks), *(member_class(name, names[name], networks[name]) for name in networks)]
    main = _ensemble_class(ensemble, names, holders, activation, combination)
    rules = needed([main], snippets_for(ensemble.task))
    growing = any(len(getattr(model.head, "grow", ())) for model in networks.values())
    if not growing:
        members = [text.replace(", grow=[]", "").replace("                grow=[],\n", "") for text in members]
    snippets = LAYERS if growing else {name: without_growing(text) for name, text in LAYERS.items()}
    layers = needed([*members, main, *rules], snippets)
    constants = [
        *(text for text in layers if text == LAYERS["Size"]), *_constants(ensemble), *units, *combination.constants,
    ]  # fmt: skip
    classes = [*(text for text in layers if text != LAYERS["Size"]), *members, *rules]
    classes += [prediction_class(list(combination.fields)), main]
    code = "\n\n\n".join(text.strip("\n") for text in ["\n".join(text.strip("\n") for text in constants), *classes])
    return f"{_docstring(ensemble, module, names)}\n\n{_imports(code)}\n\n{code}\n"


def networks_of(ensemble: Ensemble) -> tuple[dict[str, DenseModel], dict[str, str]]:
    """Return the networks by the name under which the artifact stores them, and this name for each member."""
    networks: dict[str, DenseModel] = {}
    holders: dict[str, str] = {}
    for name, member in ensemble.named_members():
        network = member.member if isinstance(member, ViewedMember) else member
        holders[name] = next((holder for holder, other in networks.items() if other is network), name)
        networks.setdefault(holders[name], network)
    return networks, holders


def _imports(code: str) -> str:
    words = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", re.sub(r'"""(.|\n)*?"""', "", code)))
    blocks = [[line for name, line in group.items() if name in words] for group in (_STANDARD, _THIRD_PARTY)]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _docstring(ensemble: Ensemble, module: str, names: Mapping[str, str]) -> str:
    task, count = ensemble.task, len(names)
    timm = any(member.spec.backbone.startswith("timm/") for _, member in ensemble.named_members())
    size = "H, W" if ensemble.out_size is None else f"{ensemble.out_size[0]}, {ensemble.out_size[1]}"
    libraries = "torch, torchvision, timm and safetensors" if timm else "torch, torchvision and safetensors"
    channels = f"{ensemble.in_channels}, H, W) {'RGB ' if ensemble.in_channels == 3 else ''}in [0, 1]"
    networks = "one network" if count == 1 else f"{count} networks"
    return f'''"""Ensemble of {networks} for {task.name}, written by densemble {__version__}.

    from {module} import Ensemble

    model = Ensemble().eval()  # reads {module}.safetensors beside this file
    maps = model(images)  # float32 images (B, {channels} -> (B, {task.out_channels}, {size})
    prediction = model.predict(images)  # with uncertainty

Every member is a separate class and can be built, trained and changed without the others. The file needs
{libraries}. On a CPU, its maps equal those of densemble bit for bit.

{_wrapped(LICENCE_NOTE)}
"""'''


def _wrapped(text: str) -> str:
    """Break text into lines of at most 110 characters."""
    return re.sub(r"(.{1,110})(?: |$)", r"\1\n", text).strip()


def _constants(ensemble: Ensemble) -> list[str]:
    constants = ['WEIGHTS_FILE = Path(__file__).with_suffix(".safetensors")']
    constants += [f'{table("WEIGHTS", ensemble.weights)}\n"""Shares of the members; they sum to 1."""']
    if any(temperature != 1 for temperature in ensemble.temperatures.values()):
        constants.append(f'{table("TEMPERATURES", ensemble.temperatures)}\n"""Divisors of the members\' logits."""')
    if ensemble.task.classes:
        classes = call("(", map(quoted, ensemble.task.classes), used=len("CLASSES = "))
        classes = classes.replace(")", ",)") if len(ensemble.task.classes) == 1 else classes
        constants.append(f'CLASSES = {classes}\n"""Names of the channels."""')
    return constants


def _ensemble_class(
    ensemble: Ensemble, names: Mapping[str, str], holders: Mapping[str, str], activation: str, text: CombinationText
) -> str:
    members = call("{", [f"{quoted(name)}: {names[name]}()" for name in names], 8, used=len("members = "))
    buffers = "".join(
        f'        self.register_buffer("{name}", torch.zeros({", ".join(map(str, shape))}))\n'
        for name, shape in text.buffers.items()
    )
    fitted = "".join(f'        self.{name}.copy_(tensors["{_FITTED}{name}"])\n' for name in text.buffers)
    fields = call("Prediction", [f"{name}={value}" for name, value in text.fields.items()], 8, used=len("return "))
    lines = "".join(f"        {line}\n" for line in text.lines)
    replaced = {
        "MEMBERS": members,
        "BUFFERS\n": buffers,
        "FITTED\n": fitted,
        "ACTIVATED": _activated(ensemble, holders, activation),
        "COMBINED": text.combined,
        "LINES\n": lines,
        "FIELDS": fields,
        "CHANNELS": str(ensemble.in_channels),
        "OUTPUT": f"{ensemble.task.out_channels}, "
        + ("H, W" if ensemble.out_size is None else f"{ensemble.out_size[0]}, {ensemble.out_size[1]}"),
    }
    code = _ENSEMBLE
    for placeholder, value in replaced.items():
        code = code.replace(placeholder, value)
    return code


def _activated(ensemble: Ensemble, holders: Mapping[str, str], activation: str) -> str:
    """Return the body of the method that computes the activated maps of the members."""
    members = dict(ensemble.named_members())
    tempered = any(temperature != 1 for temperature in ensemble.temperatures.values())
    lines = ["maps = []"]
    if all(name == holders[name] and isinstance(member, DenseModel) for name, member in members.items()):
        lines.append(f"for {'name, ' if tempered else ''}member in self.members.{'items' if tempered else 'values'}():")
        lines.append("    logits = member(images).float()")
    else:
        outputs = [
            f"{quoted(name)}: " + view_text(f"self.members[{quoted(holders[name])}]", name, member, 12)
            for name, member in members.items()
        ]
        lines.append(f"outputs = {call('{', outputs, 8, used=len('outputs = '))}")
        lines.append(f"for {'name, ' if tempered else ''}output in outputs.{'items' if tempered else 'values'}():")
        lines.append("    logits = output.float()")
    lines[-1] += " / TEMPERATURES[name]" if tempered else ""
    sizes = {member.spec.out_size for member in members.values()}
    if sizes != {ensemble.out_size}:
        lines.insert(1, f"size = {ensemble.out_size or 'images.shape[-2:]'}")
        function = "resize_density" if ensemble.task.target_kind == "density" else "resize"
        activation = f"{function}({activation}, size)"
    return "\n".join(f"        {line}" for line in [*lines, f"    maps.append({activation})", "return maps"])


_ENSEMBLE = '''
class Ensemble(nn.Module):
    """Combine the members: float images (B, CHANNELS, H, W) in [0, 1] -> maps (B, OUTPUT).

    Args:
        weights: file of the weights; None: random weights.
    """

    def __init__(self, weights: str | Path | None = WEIGHTS_FILE) -> None:
        super().__init__()
        members = MEMBERS
        self.members = nn.ModuleDict(members)
BUFFERS
        if weights is not None:
            self.load(weights)

    def load(self, path: str | Path) -> None:
        """Read all weights from a file, in which the tensors of a member are named MEMBER/parameter."""
        tensors = load_file(path)
        for name, member in self.members.items():
            keys = [key for key in tensors if key.rpartition("/")[0] == name]
            member.load_state_dict({key.rpartition("/")[2]: tensors[key] for key in keys})
FITTED

    def member_maps(self, images: Tensor) -> list[Tensor]:
        """Return the activated maps of the members, each (B, OUTPUT)."""
ACTIVATED

    def combine(self, maps: list[Tensor]) -> Tensor:
        """Combine the members' maps."""
        return COMBINED

    def forward(self, images: Tensor) -> Tensor:
        return self.combine(self.member_maps(images))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Return the combined map with its uncertainty; call eval() first."""
        maps = self.member_maps(images)
        mean = self.combine(maps)
LINES
        return FIELDS
'''
