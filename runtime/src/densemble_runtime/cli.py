"""The command ``densemble-predict``."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from densemble_runtime import __version__
from densemble_runtime.errors import DataError, PartialError, ResourceError, RuntimeFailure
from densemble_runtime.files import output_names
from densemble_runtime.images import find_images
from densemble_runtime.model import Model
from densemble_runtime.prediction import SAVE, require_kinds


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="densemble-predict", description="Predict images with an ONNX file of `densemble export`."
    )
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("images", nargs="+", help="images, folders of images, and globs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--save", default="map,overlay", help=f"kinds of files, separated by commas: {', '.join(SAVE)} (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--threads", type=int, help="number of threads; default: one per core")
    parser.add_argument("--providers", help="execution providers of onnxruntime, separated by commas; default: the CPU")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def predict(arguments: argparse.Namespace) -> None:
    """Predict all images and write their files.

    Raises:
        PartialError: some images failed.
        DataError: all images failed, or there are none.
    """
    what = _names(arguments.save)
    require_kinds(what)
    images = find_images(arguments.images)
    model = Model(arguments.model, _names(arguments.providers or "") or None, arguments.threads)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for path, name in zip(images, output_names(images), strict=True):
        start = time.perf_counter()
        try:
            prediction = model.predict(path)
            seconds = time.perf_counter() - start
            files = prediction.save(arguments.out, what, name)
        except DataError as error:
            failed.append({"image": str(path), "reason": str(error)})
            print(f"failed: {error}", file=sys.stderr)
            continue
        size = list(prediction.mean.shape[1:])
        done.append({"image": str(path), "size": size, "seconds": round(seconds, 4), "files": list(map(str, files))})
    if arguments.json:
        print(json.dumps({"model": str(arguments.model), "predicted": done, "failed": failed}, indent=2))
    print(f"{len(done)} of {len(images)} images predicted into {arguments.out}", file=sys.stderr)
    if failed and not done:
        raise DataError(f"no image could be predicted: {failed[0]['reason']}")
    if failed:
        raise PartialError(f"{len(failed)} of {len(images)} images failed, the others are done: {failed[0]['reason']}")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of ``densemble-predict``; expected failures become one line and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        predict(_parser().parse_args(words))
    except RuntimeFailure as error:
        print(f"densemble-predict: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError:
        print(f"densemble-predict: {ResourceError('out of memory; give smaller images')}", file=sys.stderr)
        sys.exit(ResourceError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output is gone (`| head`); replace stdout, so that closing it does not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
