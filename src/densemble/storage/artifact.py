"""The artifact: one safetensors file that holds an ensemble.

An artifact loads without pickle, code or network access, and checksums detect damage. Tensors are named
``MEMBER/parameter``. ``__metadata__["densemble"]`` is strict JSON with the members' specifications, weights, rule,
task, held-out metrics, versions, and a SHA-256 of every tensor; ``__metadata__["densemble.sha256"]`` is the SHA-256 of
that JSON.
"""

import hashlib
import json
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.membership import keep_members
from densemble.ensemble.placement import find_device, fits, put_on
from densemble.ensemble.state import describe as describe_parts
from densemble.ensemble.state import described
from densemble.errors import ArtifactError, UsageError
from densemble.input_files import open_regular
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.network_arguments import unwrapped
from densemble.storage.description import member_spec, require_description, require_part_values, require_suiting
from densemble.storage.hub_download import ARTIFACT, download, hub_address, remedy
from densemble.storage.restore import BUILD_ERRORS, restore
from densemble.storage.runs import RunFolder, strict
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import require_writable
from densemble.untrusted import Unreadable, excerpt, parse_json
from densemble.user_code import is_user_function, require_allowed, user_object
from densemble.versions import installed_versions

SCHEMA = 1
KEY = "densemble"
CHECKSUM_KEY = "densemble.sha256"
LICENCE_NOTE = (
    "Weights derived from pretrained classifiers stay under the terms of those classifiers and of the data "
    "they were trained on."
)
_MAX_HEADER_BYTES = 64 << 20
_FITTED = "combine.fitted/"
"""Prefix of the tensors of the combination rule; it is no member name because those contain no dot."""


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype}{tuple(plain.shape)}".encode()
    return hashlib.sha256(head + plain.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def metadata(description: dict[str, Any]) -> dict[str, str]:
    """Build ``__metadata__``: the description as strict JSON, and its checksum."""
    text = json.dumps(strict(description), allow_nan=False, ensure_ascii=False)
    return {KEY: text, CHECKSUM_KEY: hashlib.sha256(text.encode()).hexdigest()}


def require_artifact_name(path: Path) -> None:
    """Check the suffix of an artifact's name.

    Raises:
        UsageError: the suffix is not ``.safetensors``.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"'{path}': an artifact is named NAME.safetensors")


def save(ensemble: Ensemble | DenseModel, path: str | Path) -> Path:
    """Write an ensemble to one file, atomically.

    Args:
        ensemble: ensemble of members with named backbones. A single network is saved as an ensemble of one.
        path: ``NAME.safetensors``.

    Raises:
        UsageError: the suffix is wrong, or a member was made from a module, which no file can rebuild.
        ResourceError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    require_artifact_name(path)
    ensemble = unwrapped(ensemble)
    if isinstance(ensemble, DenseModel):
        ensemble = Ensemble([ensemble])
    description, tensors = _contents(ensemble)
    require_writable(path.parent)
    write_tensors(path, tensors, metadata(description))
    return path


def _contents(ensemble: Ensemble) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of an ensemble's artifact."""
    members, tensors = _member_entries(ensemble)
    tensors |= {f"{_FITTED}{key}": value.detach().cpu().contiguous() for key, value in ensemble.fitted.items()}
    description = {
        "schema": SCHEMA,
        "members": members,
        **describe_parts(ensemble),
        "sha256": {name: _digest(tensor) for name, tensor in tensors.items()},
        "versions": installed_versions("densemble", "torch", "torchvision", "timm"),
        "licence": LICENCE_NOTE,
    }
    return description, tensors


def holds(path: Path, ensemble: Ensemble) -> bool:
    """Return whether a file is an artifact of this ensemble, whichever version wrote it.

    Raises:
        UsageError: no file can hold the ensemble, see :func:`save`.
    """
    try:
        stored = describe(path)
    except ArtifactError:
        return False
    description = json.loads(metadata(_contents(ensemble)[0])[KEY])
    parts = [key for key in description if key not in ("members", "versions", "licence")]
    # An older version stored fewer settings of a member; the others have their defaults.
    old, new = stored["members"], description["members"]
    same_members = len(old) == len(new) and all(a.items() <= b.items() for a, b in zip(old, new, strict=True))
    return same_members and all(stored.get(key) == description[key] for key in parts)


def _member_entries(ensemble: Ensemble) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Metadata of each member, and all tensors; a network that several members share is stored once."""
    entries: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    holders: dict[int, str] = {}
    for name, member in ensemble.members.items():
        network = member.member if isinstance(member, ViewedMember) else member
        assert isinstance(network, DenseModel)
        if network.spec.backbone.startswith("module:"):
            raise UsageError(
                f"member '{name}' was made from a module, not from a backbone's name: no file can rebuild it"
            )
        _require_head_name(name, network.spec.head)
        holder = holders.setdefault(id(network), name)
        if holder == name:
            state = network.state_dict().items()
            tensors |= {f"{name}/{key}": value.detach().cpu().contiguous() for key, value in state}
        view = {"view": member.view.name} if isinstance(member, ViewedMember) else {}
        shared = {"tensors": holder} if holder != name else {}
        entries.append({"name": name, "weight": ensemble.weights[name], **view, **shared, **network.spec.as_dict()})
    return entries, tensors


def _require_head_name(member: str, head: str) -> None:
    """Check that the head of a member can be made again from its name.

    Raises:
        UsageError: it cannot.
    """
    if is_user_function(head):
        user_object(head, "head")
    elif ":" in head:
        raise UsageError(
            f"member '{member}' has the head {head}, which has no name at the top level of a module: no file can "
            "rebuild it; define it there"
        )


def describe(path: str | Path) -> dict[str, Any]:
    """Read and check the metadata of an artifact, without its tensors.

    Raises:
        ArtifactError: the file does not exist, is damaged, is not an artifact, or has a newer schema.
    """
    path = Path(path)
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"artifact '{path}' is damaged ({excerpt(str(error))}); {remedy(path)}") from error
    text = stored.get(KEY)
    if text is None:
        raise ArtifactError(
            f"'{path}' is a safetensors file but not a densemble artifact; make one with `densemble assemble`"
        )
    if hashlib.sha256(text.encode()).hexdigest() != stored.get(CHECKSUM_KEY):
        raise ArtifactError(f"artifact '{path}' is damaged: its metadata differs from its checksum; {remedy(path)}")
    with _damage(path):
        values = parse_json(text)
        schema = values.get("schema") if isinstance(values, dict) else None
        if type(schema) is not int:
            raise Unreadable(f"schema is {excerpt(schema, 60)}")
    if schema != SCHEMA:
        raise ArtifactError(f"artifact '{path}' has schema {schema}, this version reads {SCHEMA}; update densemble")
    with _damage(path):
        require_description(values)
    return dict(values)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn errors about the values in a description into an ArtifactError."""
    try:
        yield
    except BUILD_ERRORS as error:
        reason = error if isinstance(error, Unreadable) else repr(error)
        raise ArtifactError(
            f"artifact '{path}' has damaged metadata ({excerpt(str(reason))}); {remedy(path)}"
        ) from error
    except UsageError as error:
        raise ArtifactError(
            f"artifact '{path}' cannot be used by this version ({excerpt(str(error))}); {remedy(path)}, or update "
            "densemble"
        ) from error


def fingerprint(path: str | Path) -> str:
    """Identify an artifact by the SHA-256 of its description, which contains the checksums of all tensors.

    Raises:
        ArtifactError: see :func:`describe`.
    """
    return metadata(describe(artifact_file(path)))[CHECKSUM_KEY]


def load(
    path: str | Path, device: str = "auto", functions: Sequence[str] = (), min_members: int | None = None
) -> Ensemble:
    """Load an artifact as an :class:`Ensemble` in eval mode; members are read one at a time and tensors are checked.

    Args:
        path: file, folder or ``hf://`` address, see :func:`artifact_file`.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto``: the GPU if there is one and its
            memory is large enough.
        functions: names ``package.module:NAME`` that may be imported and called: backbones, heads and combination
            rules. An artifact alone never causes code to be called.
        min_members: leave out damaged members, and members that give NaN later, with a warning as long as at least
            this many remain. Default: all members are required.

    Raises:
        ArtifactError: the file does not exist, is damaged, is not an artifact, has a newer schema, or needs a function
            that is not in ``functions``.
        UsageError: ``min_members`` is below 1, or the device does not exist.
        ResourceError: the artifact is not in the hub's cache and the hub cannot be reached.
    """
    if min_members is not None and min_members < 1:
        raise UsageError(f"min_members = {min_members}: an ensemble has at least 1 member")
    target, path = find_device(device), artifact_file(path)
    values = describe(path)
    with _damage(path):
        specs = {entry["name"]: member_spec(entry) for entry in values["members"]}
        require_allowed(f"artifact '{path}'", _named_parts(specs, values["combine"]), functions)
        require_part_values(values)
        members, damaged = _load_members(path, values, specs, min_members)
        ensemble = _build_ensemble(path, values, members, min_members)
        require_suiting(ensemble, list(specs))
        ensemble.leave_out(damaged)
    if device == "auto" and target.type == "cuda" and not fits(ensemble, target):
        return ensemble.eval()
    return put_on(ensemble, target).eval()


def _named_parts(specs: Mapping[str, DenseSpec], combine: str) -> list[tuple[str, str]]:
    """What may be user code, and its name: the members' backbones and heads, and the combination rule."""
    members = [(f"member '{name}'", part) for name, spec in specs.items() for part in (spec.backbone, spec.head)]
    return [*members, ("the combination rule", combine)]


def _build_ensemble(
    path: Path, values: dict[str, Any], members: dict[str, DenseModel | ViewedMember], min_members: int | None
) -> Ensemble:
    return Ensemble(
        members,
        weights=[entry["weight"] for entry in values["members"] if entry["name"] in members],
        fitted=_load_fitted(path, values, list(members)),
        min_members=min_members,
        **{**described(values), "temperatures": {name: values["temperatures"][name] for name in members}},
    )


def _load_members(
    path: Path, values: dict[str, Any], specs: Mapping[str, DenseSpec], min_members: int | None
) -> tuple[dict[str, DenseModel | ViewedMember], dict[str, str]]:
    """Members by name, and the reason for each member that is left out."""
    networks: dict[str, DenseModel] = {}
    members: dict[str, DenseModel | ViewedMember] = {}
    damaged: dict[str, str] = {}
    for entry in values["members"]:
        holder, spec = entry.get("tensors") or entry["name"], specs[entry["name"]]
        try:
            if holder not in networks:
                source = f"artifact '{path}', member '{holder}'"
                networks[holder] = restore(spec, _read_tensors(path, f"{holder}/", values["sha256"]), source)
            if networks[holder].spec != spec:
                raise Unreadable(f"the member '{excerpt(entry['name'], 60)}' shares tensors with another network")
        except ArtifactError as error:
            if min_members is None:
                raise
            damaged[entry["name"]] = str(error)
            warnings.warn(f"member '{entry['name']}' is left out: {error}", stacklevel=3)
            continue
        view = entry.get("view")
        members[entry["name"]] = networks[holder] if view is None else ViewedMember(networks[holder], view)
    if min_members is not None and len(members) < min_members:
        raise ArtifactError(
            f"artifact '{path}': {len(members)} of {len(values['members'])} members can be used and at least "
            f"{min_members} are needed (--min-members)" + "".join(f"; {reason}" for reason in damaged.values())
        )
    return members, damaged


def _load_fitted(path: Path, values: dict[str, Any], kept: Sequence[str]) -> dict[str, Tensor]:
    """Fitted tensors of the combination rule for the remaining members."""
    names = [entry["name"] for entry in values["members"]]
    fitted = _read_tensors(path, _FITTED, values["sha256"])
    return fitted if list(kept) == names else keep_members(values["combine"], fitted, [names.index(k) for k in kept])


def artifact_file(path: str | Path) -> Path:
    """Return the file of an artifact.

    Args:
        path: the file, a folder of ``save_pretrained``, a run folder for the ensemble at the end of its training, or
            ``hf://USER/NAME[@REVISION][/FILE.safetensors]``, which is downloaded unless it is in the hub's cache.

    Raises:
        UsageError, ArtifactError, ResourceError: see :func:`densemble.storage.hub_download.download`.
    """
    address = hub_address(path)
    if address is not None:
        return download(address)
    files = (RunFolder(Path(path)).artifact, Path(path) / ARTIFACT)
    return next((file for file in files if file.is_file()), Path(path))


def _read_tensors(path: Path, prefix: str, digests: dict[str, str]) -> dict[str, Tensor]:
    """Read the tensors of a member or rule, check their digests, and remove the prefix from their names."""
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            # Member names may contain a slash, parameter names do not: 'unet/fold1/mean' does not belong to 'unet'.
            for key in (key for key in digests if key.rpartition("/")[0] == prefix.removesuffix("/")):
                tensor = file.get_tensor(key)
                if _digest(tensor) != digests[key]:
                    raise ArtifactError(
                        f"artifact '{path}' is damaged: tensor '{key}' differs from its checksum; {remedy(path)}"
                    )
                # Copy: how PyTorch rounds depends on a tensor's alignment, which in a file depends on its header.
                tensors[key.removeprefix(prefix)] = tensor.clone()
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"artifact '{path}' is damaged ({excerpt(str(error))}); {remedy(path)}") from error
    return tensors


def _check_header(path: Path) -> None:
    """Check for repeated keys and huge header sizes, which the safetensors library accepts."""
    if not path.is_file():
        raise ArtifactError(f"no artifact at '{path}'; make one with `densemble assemble`")
    advice = remedy(path)
    if path.suffix != ".safetensors":
        advice = "an artifact is named NAME.safetensors; `densemble assemble` writes one"
    try:
        with open_regular(path) as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > _MAX_HEADER_BYTES:
                raise ArtifactError(f"'{path}' is not a safetensors file or is damaged; {advice}")
            parse_json(file.read(length).decode())
    except (OSError, struct.error, ValueError) as error:
        raise ArtifactError(
            f"'{path}' is not a safetensors file or is damaged ({excerpt(str(error))}); {advice}"
        ) from error
