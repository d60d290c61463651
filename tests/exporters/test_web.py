"""The example page in a real browser: the maps of onnxruntime in Python."""

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.exporters.onnx import open_onnx

WEB = Path(__file__).resolve().parents[2] / "examples" / "web"

# Sends the maps of the page to the server of the test, or the error that the page shows.
REPORT = """
<script type="module">
  const send = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
  const base64 = (data) => {
    let text = "";
    for (const byte of new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) text += String.fromCharCode(byte);
    return btoa(text);
  };
  const timer = setInterval(async () => {
    const status = document.getElementById("status");
    if (status.className === "error") send({ error: status.textContent });
    else if (globalThis.prediction && / ms$/.test(status.textContent)) {
      const { mean, label } = globalThis.prediction.maps;
      send({ mean: base64(mean.data), dims: mean.dims, label: label && base64(label.data),
             legend: document.getElementById("legend").textContent,
             scale: document.getElementById("scale").textContent, status: status.textContent });
    } else return;
    clearInterval(timer);
  }, 100);
</script>
"""


def page_result(folder: Path, model: str, image: str) -> dict[str, Any]:
    """Open the page in Chromium with a model and an image of a folder, and return what it reports."""
    for file in (*WEB.glob("*.js"), WEB / "index.html"):
        shutil.copy(file, folder)
    (folder / "index.html").write_text((WEB / "index.html").read_text() + REPORT)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(WEB / "node_modules")
    arrived, result = threading.Event(), {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            result.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/?{urlencode({'image': image, 'model': model})}"
        words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        browser = subprocess.Popen(
            [*words, f"--user-data-dir={folder / 'profile'}", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert arrived.wait(200), "the page reported nothing"
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return result


PIXELS = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
pytestmark = [
    pytest.mark.slow,  # starts a browser
    pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium"),
    pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs `npm install` in examples/web"),
]


def exported(folder: Path, task: de.tasks.Task) -> Path:
    """Write an image, and a file of two members."""
    Image.fromarray(PIXELS).save(folder / "photo.png")
    members = [small_dense(seed, out_channels=task.out_channels, out_size=None, input_size=None) for seed in (0, 1)]
    return de.export(de.Ensemble(members, task=task), folder / "net.onnx")


def test_the_page_gives_the_maps_of_onnxruntime(tmp_path: Path) -> None:
    task = de.tasks.make_task({"name": "segmentation", "classes": ["sky", "road", "car"]})
    path = exported(tmp_path, task)
    result = page_result(tmp_path, "net.onnx", "photo.png")
    expected = open_onnx(path)(PIXELS[None])
    mean = np.frombuffer(base64.b64decode(result["mean"]), np.float32).reshape(result["dims"])
    np.testing.assert_allclose(mean, expected["mean"], rtol=0, atol=1e-4)
    label = np.frombuffer(base64.b64decode(result["label"]), np.int64).reshape(expected["label"].shape)
    assert (label != expected["label"]).mean() <= 1e-3
    assert result["legend"] == "".join(task.classes[number] for number in np.unique(label))
    assert result["scale"] == "entropy (nats): 0.00 to 1.10" and "51 x 37 pixels in" in result["status"]

    Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]])).save(tmp_path / "clear.png")
    assert page_result(tmp_path, "net.onnx", "clear.png") == {
        "error": "clear.png has transparent pixels; save it without transparency"
    }


def test_the_uncertainty_of_heat_is_the_deviation_of_the_members(tmp_path: Path) -> None:
    path = exported(tmp_path, de.tasks.make_task({"name": "heatmap", "classes": ["head", "hand"]}))
    deviation = np.sqrt(open_onnx(path)(PIXELS[None])["variance"][0].mean(0))
    name, _, limits = page_result(tmp_path, "net.onnx", "photo.png")["scale"].partition(": ")
    assert name == "standard deviation over the members"
    low, high = (float(number) for number in limits.split(" to "))
    assert low == 0 and high == pytest.approx(deviation.max(), rel=5e-3) and high > np.median(deviation) > 0
