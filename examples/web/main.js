// Runs an ONNX file of densemble in the browser: pixels of a canvas in, maps out.
// The file contains resizing, normalization, all members and their combination, so there is no preprocessing here.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { CLASS_COLOURS, COLOUR_MAPS } from "./colours.js";
import { readMetadata } from "./metadata.js";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
// Several threads need SharedArrayBuffer, which browsers give only to pages with COOP and COEP headers.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;

const element = (id) => document.getElementById(id);
let session, description, image;

async function openModel(bytes, name) {
  say(`loading ${name} ...`);
  session = undefined;
  const text = readMetadata(bytes, name).densemble;
  if (!text) throw new Error(`${name} is not an export of densemble: its metadata has no 'densemble'`);
  description = JSON.parse(text);
  if (description.schema !== 1) throw new Error(`${name} has version ${description.schema}, this page reads version 1`);
  const { channels, reading } = description.input;
  if (channels !== 3 || reading.bands || reading.image_range) {
    throw new Error(`${name} takes ${channels} bands of raster files, a browser reads colour images only`);
  }
  session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  say(`${name}: ${description.task.name}, ${description.members.length} members. Choose an image.`);
  if (image) await predict();
}

async function openImage(blob, name) {
  // Colours as stored, without the conversion to the screen's colour space, and without alpha.
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options).catch(() => {
    throw new Error(`${name} is not an image that this browser reads`);
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const data = context.getImageData(0, 0, bitmap.width, bitmap.height);
  if (data.data.some((value, at) => at % 4 === 3 && value < 255)) { // a canvas changes the colours of such pixels
    throw new Error(`${name} has transparent pixels; save it without transparency`);
  }
  image = { name, data };
  if (session) await predict();
  else say(`${name}: ${bitmap.width} x ${bitmap.height} pixels. Choose a model.`);
}

// The input of the graph: uint8 (1, H, W, 3), or float32 (1, 3, H, W) in [0, 1].
function inputTensor({ data, width, height }) {
  const pixels = width * height;
  if (description.input.type === "uint8") {
    const rgb = new Uint8Array(pixels * 3);
    for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c];
    return new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  }
  const unit = new Float32Array(pixels * 3);
  for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) unit[c * pixels + i] = data[4 * i + c] / 255;
  return new ort.Tensor("float32", unit, [1, 3, height, width]);
}

async function predict() {
  const { name, data } = image;
  const size = description.input.size;
  if (size && (size[0] !== data.height || size[1] !== data.width)) {
    throw new Error(`${name} is ${data.height}x${data.width}, the model takes ${size.join("x")} only`);
  }
  say(`predicting ${name} ...`);
  await new Promise((done) => setTimeout(done)); // shows the line above
  const start = performance.now();
  const maps = await session.run({ [description.input.name]: inputTensor(data) });
  const milliseconds = performance.now() - start;
  globalThis.prediction = { description, maps, milliseconds }; // for the console of the browser
  draw(data, maps);
  say(`${name}: ${data.width} x ${data.height} pixels in ${Math.round(milliseconds)} ms`);
}

function draw(data, maps) {
  const { width, height } = data;
  const [pixels, mean] = [width * height, maps.mean.data];
  const channels = mean.length / pixels;
  const { target_kind: kind } = description.task;
  const classes = Array.from({ length: channels }, (_, k) => description.classes[k] ?? `class ${k}`);
  const colours = classColours(classes);
  const best = (i) => { // channel with the largest value
    let k = 0;
    for (let j = 1; j < channels; j++) if (mean[j * pixels + i] > mean[k * pixels + i]) k = j;
    return k;
  };
  const labels = kind === "labels" || kind === "masks";
  const [low, high] = kind === "values" ? limits(mean) : [0, limits(mean)[1]];
  const map = kind === "values" ? "viridis" : "inferno";
  const present = new Set();
  paint("shown", data, () => [[0, 0, 0], 0]);
  paint("overlay", data, (i) => {
    const k = best(i), value = mean[k * pixels + i];
    if (kind === "pixels") return [[0, 1, 2].map((c) => 255 * mean[Math.min(c, channels - 1) * pixels + i]), 1];
    if (labels) {
      if (kind === "labels" || value >= 0.5) present.add(k);
      return [colours[k], isBackground(classes[k]) ? 0 : kind === "labels" ? 0.6 : 0.6 * value];
    }
    const share = (value - low) / (high - low || 1);
    return [mapColour(map, share), kind === "values" ? 0.7 : Math.min(1.2 * share, 0.75)];
  });
  const unit = kind === "density" ? "objects per pixel" : description.outputs.mean.unit;
  const named = [...present].sort((a, b) => a - b).filter((k) => !isBackground(classes[k]));
  element("task").textContent = description.task.name;
  element("legend").replaceChildren(...(labels
    ? named.map((k) => entry(classes[k], `rgb(${colours[k]})`))
    : kind === "pixels" ? [] : [bar(description.task.name, unit, low, high, map)]));
  drawUncertainty(data, maps, unit, kind === "labels" ? channels : 2);
}

// The entropy of labels and masks; of all other maps the standard deviation over the members.
function drawUncertainty(data, maps, unit, outcomes) {
  const { target_kind: kind, distribution } = description.task;
  const measure = description.task.uncertainty ?? (distribution === "none" ? "variance" : "entropy"); // older files
  const ofMembers = measure === "variance";
  const uncertain = ofMembers ? deviation(maps.variance?.data, data.width * data.height) : maps.entropy?.data;
  const [low, high] = limits(uncertain ?? []);
  const flat = uncertain && high - low <= 1e-6 * Math.abs(high);
  const top = ofMembers ? high : Math.log(outcomes);
  paint("uncertainty", data, (i) => [uncertain && !flat ? mapColour("magma", uncertain[i] / top) : [128, 128, 128], 1]);
  const spread = kind === "values" ? "standard deviation" : "standard deviation over the members";
  const name = ofMembers ? spread : "entropy";
  const note = !uncertain
    ? `no map of uncertainty: export the model with --maps ${measure}`
    : `no map of uncertainty: the ${name} is ${high.toPrecision(3)} at every pixel`
      + (ofMembers && description.members.length === 1 ? "; one member has no spread between members" : "");
  element("scale").replaceChildren(
    uncertain && !flat ? bar(name, ofMembers ? unit : "nats", 0, top, "magma") : entry(note, "rgb(128,128,128)"));
}

// The root of the mean variance of the channels.
function deviation(variance, pixels) {
  if (!variance) return undefined;
  const sums = new Float32Array(pixels);
  for (let i = 0; i < variance.length; i++) sums[i % pixels] += variance[i];
  return sums.map((sum) => Math.sqrt(sum * pixels / variance.length));
}

function entry(text, background) {
  const [item, box] = [document.createElement("li"), document.createElement("i")];
  box.style.background = background;
  item.append(box, text);
  return item;
}

function bar(name, unit, low, high, map) {
  const stops = COLOUR_MAPS[map].map((colour) => `rgb(${colour})`);
  const item = entry(`${name}${unit ? ` (${unit})` : ""}: ${low.toPrecision(3)} to ${high.toPrecision(3)}`,
    `linear-gradient(to right, ${stops})`);
  item.firstChild.className = "wide";
  return item;
}

// Draws colourAt(pixel) = [colour, opacity] over the image.
function paint(id, data, colourAt) {
  const canvas = Object.assign(element(id), { width: data.width, height: data.height });
  const result = new ImageData(new Uint8ClampedArray(data.data), data.width, data.height);
  for (let i = 0; i < data.width * data.height; i++) {
    const [colour, opacity] = colourAt(i);
    for (let c = 0; c < 3; c++) result.data[4 * i + c] = data.data[4 * i + c] * (1 - opacity) + colour[c] * opacity;
    result.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(result, 0, 0);
}

function limits(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return low <= high ? [low, high] : [0, 1];
}

// The class named background shows the image; the others have the colours of densemble, in their order.
function classColours(classes) {
  let next = 0;
  return classes.map((name) => isBackground(name) ? [0, 0, 0] : CLASS_COLOURS[next++ % CLASS_COLOURS.length]);
}

const isBackground = (name) => name.trim().toLowerCase() === "background";

function mapColour(name, share) {
  const at = Math.max(0, Math.min(share, 1)) * (COLOUR_MAPS[name].length - 1);
  const k = Math.min(Math.floor(at), COLOUR_MAPS[name].length - 2);
  return COLOUR_MAPS[name][k].map((from, c) => Math.round(from + (COLOUR_MAPS[name][k + 1][c] - from) * (at - k)));
}

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

// Shows the error of an action on the page.
const shown = (action) => action().catch((error) => say(String(error.message ?? error), true));

const picked = (input, open) => input.addEventListener("change", () => {
  const [file] = input.files;
  if (file) shown(() => open(file));
});
picked(element("model"), async (file) => openModel(new Uint8Array(await file.arrayBuffer()), file.name));
picked(element("image"), (file) => openImage(file, file.name));

// ?model=URL and ?image=URL open files of the server.
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response;
}
const query = new URLSearchParams(location.search);
await shown(async () => {
  if (query.has("image")) await openImage(await (await download(query.get("image"))).blob(), query.get("image"));
  if (query.has("model")) {
    const response = await download(query.get("model"));
    await openModel(new Uint8Array(await response.arrayBuffer()), query.get("model"));
  }
});
