"""Candidates: what may become a member of the ensemble, and what had to be dropped before anything was chosen."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig
from densemble.ensemble.views import Viewed
from densemble.errors import ArtifactError, WeightsError
from densemble.heldout.maps import read_map
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import RunFolder, read_json
from densemble.variants import read_variants

Array = np.ndarray[Any, Any]
AGAIN = "delete its folder and train it again with `densemble train ... --resume`"


@dataclass(frozen=True)
class Candidate:
    """A trained member, or a variant of one, with its kept predictions.

    Attributes:
        name: of the member, or label of the variant.
        kind: ``member``, ``view``, ``snapshot`` or ``soup``.
        spec: of its network.
        weights: file of its network's weights.
        view: through which it looks at pictures; ``None``: as they are.
        predictions: file of its maps of the validation pictures.
        val: its held-out scores.
        record: what its training left, of a member.
    """

    name: str
    kind: str
    spec: DenseSpec
    weights: Path
    view: str | None
    predictions: Path
    val: dict[str, Any]
    record: dict[str, Any]

    def network(self) -> DenseModel:
        """The network with its weights, in eval mode.

        Raises:
            ArtifactError: the weights are missing, damaged or do not fit.
        """
        if not self.weights.is_file():
            raise ArtifactError(f"member '{self.name}': no weights at '{self.weights}'; {AGAIN}")
        return restore(self.spec, read_state(self.weights), f"member '{self.name}'")

    def member(self, network: DenseModel) -> DenseModel | Viewed:
        """The network as it looks at pictures."""
        return network if self.view is None else Viewed(network, self.view)


@dataclass(frozen=True)
class Dropped:
    """A candidate that cannot be used, and why."""

    name: str
    reason: str


def member_records(run: RunFolder, config: RunConfig) -> dict[str, dict[str, Any]]:
    """Records of the members whose training is finished, by name.

    Raises:
        ArtifactError: a record that is damaged.
    """
    found = {}
    for number, name in enumerate(config.member_names()):
        folder = run.member(number, name)
        try:
            record = read_json(folder.record) if folder.record.is_file() else {}
            if record.get("state") == "done":
                _require_whole(record)
                found[name] = record
        except (ArtifactError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the record '{folder.record}' is damaged ({error!r}); delete that folder, and it can be trained again "
                "(`densemble train ... --resume`)"
            ) from error
    return found


def _require_whole(record: dict[str, Any]) -> None:
    DenseSpec.from_dict(record["spec"])
    if missing := {"val", "parameters", "epochs", "seconds"} - record.keys():
        raise KeyError(*sorted(missing))


def find_candidates(run: RunFolder, config: RunConfig) -> list[Candidate]:
    """Finished members in their order, then the variants that were made of them."""
    records = member_records(run, config)
    found = []
    for number, name in enumerate(config.member_names()):
        if name not in records:
            continue
        record, folder = records[name], run.member(number, name)
        spec = DenseSpec.from_dict(record["spec"])
        found.append(Candidate(name, "member", spec, folder.weights, None, folder.predictions, record["val"], record))
    for label, variant in read_variants(run).items():
        if variant.of in records:
            spec = DenseSpec.from_dict(records[variant.of]["spec"])
            found.append(
                Candidate(
                    label, variant.kind, spec, run.path / variant.weights, variant.view, variant.predictions,
                    variant.val, records[variant.of],
                )
            )  # fmt: skip
    return found


def open_all(
    candidates: Sequence[Candidate], pictures: int, channels: int
) -> tuple[list[Candidate], list[Array], list[Dropped]]:
    """Maps the kept predictions of all candidates into memory and reads them once.

    Args:
        candidates: in their order.
        pictures: number of validation pictures.
        channels: K.

    Returns:
        Those that can be used, their maps ``(N, K, h, w)``, and those that cannot: predictions or weights that are
        missing or damaged, a wrong shape, NaN or infinity.
    """
    kept: list[tuple[Candidate, Array]] = []
    dropped = []
    sound: set[Path] = set()
    for candidate in candidates:
        try:
            maps = _open(candidate.predictions, pictures, channels)
            if candidate.weights not in sound:
                candidate.network()
                sound.add(candidate.weights)
            kept.append((candidate, maps))
        except (ArtifactError, WeightsError) as error:
            dropped.append(Dropped(candidate.name, str(error)))
    sizes = Counter(maps.shape[-2:] for _, maps in kept)
    usual = sizes.most_common(1)[0][0] if sizes else None
    for candidate, maps in kept:
        if maps.shape[-2:] != usual:
            own, others = ("x".join(str(side) for side in shape) for shape in (maps.shape[-2:], usual or ()))
            reason = f"its kept maps are {own}, those of the others {others}; {AGAIN}"
            dropped.append(Dropped(candidate.name, reason))
    usable = [(candidate, maps) for candidate, maps in kept if maps.shape[-2:] == usual]
    return [candidate for candidate, _ in usable], [maps for _, maps in usable], dropped


def _open(path: Path, pictures: int, channels: int) -> Array:
    try:
        maps: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"cannot read its predictions '{path}' ({_short(error)}); {AGAIN}") from error
    if maps.ndim != 4 or maps.shape[:2] != (pictures, channels) or not maps.size or maps.dtype.kind != "f":
        raise ArtifactError(
            f"its predictions '{path}' are {maps.dtype} {maps.shape} instead of floats ({pictures}, {channels}, h, w); "
            f"{AGAIN}"
        )
    for number in range(pictures):
        if not np.isfinite(read_map(maps, number)).all():
            raise ArtifactError(f"its prediction of picture {number} holds NaN or infinity ('{path}'); {AGAIN}")
    return maps


def _short(error: Exception) -> str:
    """Without the path, which the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_enough(
    left: int, dropped: Sequence[Dropped], least: int, named: Sequence[str], report: Callable[[str], None]
) -> None:
    """Says what was dropped.

    Raises:
        ArtifactError: fewer than ``least`` candidates are left, or one of those that are asked for by name is not.
    """
    for one in dropped:
        report(f"dropped: {one.name}: {one.reason}")
        if one.name in named:
            raise ArtifactError(f"'{one.name}' cannot be used: {one.reason}; or leave it out of --select")
    if left < max(least, 1):
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in dropped) or "no other is trained"
        raise ArtifactError(
            f"{left} usable member{'' if left == 1 else 's'}, at least {max(least, 1)} are needed "
            f"(--min-members): {reasons}"
        )
