// The page: loads the network, takes images and shows the answer.
import { renderAnswer } from "./answer.js";
import { pack, paint } from "./colors.js";
import { download } from "./download.js";
import { build, renderMaps } from "./network.js";
import { cover, describeDifferences } from "./pixels.js";
import { COARSE, element, largest, make, occluderPx, percent, state, TOUCH } from "./state.js";

const worker = { waiting: new Map(), last: 0 };
/** Gives the worker a task. Resolves to its result. */
worker.ask = (task, message = {}, report = null) => new Promise((resolve, reject) => {
  const id = ++worker.last;
  worker.waiting.set(id, { resolve, reject, report });
  worker.port.postMessage({ task, id, ...message });
});

function showProblem(error) {
  element("problem").textContent = error ? String(error.message ?? error) : "";
  element("problem").hidden = !error;
}

async function start() {
  addEventListener("unhandledrejection", (event) => showProblem(event.reason));
  element("progress").hidden = false;
  element("step").textContent = "Loading the network …";
  worker.port = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.port.onerror = (event) => showProblem(`The network's worker failed: ${event.message ?? "it could not start"}`);
  worker.port.onmessage = ({ data }) => {
    const { resolve, reject, report } = worker.waiting.get(data.id);
    if ("progress" in data) return report(data.progress);
    worker.waiting.delete(data.id);
    return data.error ? reject(new Error(data.error)) : resolve(data.result);
  };
  try {
    const page = JSON.parse(new TextDecoder().decode(await download({ url: "page.json", cache: "no-store" })));
    state.page = page;
    describe(page);
    build(() => { stopOcclusion(); compute(); });
    element("step").textContent = `Loading the network, ${Math.round(page.model_bytes / 1e6)} MB …`;
    [, state.kernels, state.strongest] = await Promise.all([
      worker.ask("load", { page }, (done) => (element("progress").value = done)),
      download({ url: "kernels.bin" }).then((bytes) => new Uint16Array(bytes)),
      page.data && download({ url: "strongest.bin" }).then((bytes) => new Uint16Array(bytes)),
    ]);
  } catch (error) {
    return showProblem(error);
  } finally {
    element("loading").hidden = true;
  }
  listen();
  if (state.page.examples.length) await openExample(state.page.examples[0]);
}

const NOTE = `${TOUCH} the image to cover a spot, or drop another one.`;

const openExample = async ({ url, label }) => open(new Blob([await download({ url })]), state.page.classes[label]);

/** Fills in what is known before the network is loaded. */
function describe(page) {
  const source = page.data;
  if (!COARSE) element("about").append(" Click one to hold it.");
  element("source").textContent = source ? `Examples and training images: ${source.source}. ` : "";
  if (source?.license) element("source").append(make("a", { href: source.license, textContent: "License" }));
  const shown = page.classes.slice(0, 10).join(", ") + (page.classes.length > 10 ? ", …" : "");
  element("trained").textContent = `Trained on ${page.classes.length.toLocaleString("en")} classes` +
    `${source ? ` of ${source.source}` : ""}: ${shown}. It assigns one of them to every image.`;
  const joining = page.layers.filter((layer) => layer.joins_columns).map(({ name }) => name);
  element("doubled").textContent = `Alone, a column's inputs to ${joining.join(", ")} are multiplied by ` +
    `${page.columns}, in place of the missing ones.`;
  element("note").textContent = NOTE;
  element("model").textContent = `AlexNet (Krizhevsky, Sutskever and Hinton, 2012), ${page.title}: ` +
    `${page.parameters.toLocaleString("en")} parameters, ${page.classes.length.toLocaleString("en")} classes. ` +
    (source ? `The strongest images are from ${source.searched.toLocaleString("en")} training images.` : "");
  element("offline").textContent = page.runtime.every(({ url }) => !url.includes("://"))
    ? "The page works offline." : `Its runtime, onnxruntime-web, is loaded from ${new URL(page.runtime[0].url).host}.`;
  page.examples.forEach((example) => {
    const { title } = example, image = make("img", { src: example.url, alt: title });
    element("examples").append(make("button", { type: "button", title, onclick: () => openExample(example) }, [image]));
  });
  for (const id of ["image", "heat"]) Object.assign(element(id), { width: page.crop_px, height: page.crop_px });
  element("image").setAttribute("aria-label", `The network's ${page.crop_px} by ${page.crop_px} pixels. ` +
    "Arrow keys move a gray square over them, Escape removes it.");
}

// ------------------------------------------------------------------------------------------------------ computation

/** Opens an image: a file or a frame of the camera. */
async function open(image, name = "The image") {
  stopOcclusion();
  stopCamera();
  try {
    const pixels = await worker.ask("read", { image });
    setDrawing(false);
    showProblem(null);
    return present(pixels);
  } catch (error) {
    showProblem(`${name} can't be shown: ${error.message}`);
  }
}

/** Shows new pixels. The layers light up one after another. */
function present(pixels, light = true) {
  Object.assign(state, { pixels, covered: null, halves: null, occlusion: null });
  const differences = describeDifferences(pixels, state.page);
  element("unusual").hidden = !differences;
  element("unusual").textContent = differences && `This image looks unlike the training images: ${differences}. ` +
    "The answer may be meaningless.";
  element("network").classList.remove("lit");
  void element("network").offsetWidth; // restarts the animation
  element("network").classList.toggle("lit", light);
  return compute();
}

let wanted = false, computing = null;
/** Runs the network on the image as it is now. Of the calls during a run, only the last one starts another. */
function compute() {
  wanted = true;
  computing ??= (async () => {
    try {
      while (wanted && state.pixels) {
        wanted = false;
        const { pixels, covered } = state, gates = [...state.gates];
        const shown = covered ? cover(pixels, state.page.crop_px, covered.row, covered.column, occluderPx()) : pixels;
        paint(element("image"), (at) => pack(shown[3 * at], shown[3 * at + 1], shown[3 * at + 2]));
        state.result = await worker.ask("run", { pixels: shown, gates, all: true });
        render(gates);
        if (!covered && !state.halves && state.page.columns > 1 && !wanted) {
          const halves = await computeHalves(pixels);
          if (state.pixels === pixels) { state.halves = halves; renderAnswer(gates); }
        }
      }
    } finally { computing = null; }
  })();
  return computing;
}

/** The probabilities of all columns, then of each column alone. */
async function computeHalves(pixels) {
  const halves = [];
  for (let which = -1; which < state.page.columns; which++) {
    const gates = state.gates.map((_, column) => Number(which < 0 || column === which));
    halves.push((await worker.ask("run", { pixels, gates })).probabilities);
  }
  return halves;
}

function render(gates) {
  state.resultGates = gates;
  renderAnswer(gates);
  renderMaps(gates);
  element("occlusion").disabled = false;
}

// ------------------------------------------------------------------------------------------------------------- input

function listen() {
  element("file").onchange = ({ target }) => {
    if (target.files[0]) open(target.files[0], target.files[0].name);
    target.value = ""; // so that the same file can be chosen again
  };
  element("photograph").onclick = () => photograph().catch((error) => {
    stopCamera();
    showProblem(`No photograph: ${error.message}`);
  });
  element("draw").onclick = () => { if (setDrawing(!drawing)) fill("#ffffff"); };
  element("fill").onclick = () => fill(element("pen").value);
  element("occlusion").onclick = () => (occlusion ? stopOcclusion() : mapOcclusion());
  addEventListener("paste", ({ clipboardData: { files: [file] } }) => file && open(file, file.name));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    return file ? open(file, file.name) : showProblem("What you dropped is not a file. Save the image, then drop its file.");
  });
  listenToImage(element("image"));
  matchMedia("(prefers-color-scheme: dark)").onchange = () => { if (state.result) render(state.resultGates); };
}

function listenToImage(image) {
  const side = state.page.crop_px;
  let from = null;
  image.onpointerdown = image.onpointermove = (event) => {
    const scale = side / image.clientWidth, to = { row: event.offsetY * scale, column: event.offsetX * scale };
    if (!drawing) return coverAt(to);
    if (event.type === "pointerdown") { image.setPointerCapture(event.pointerId); from = to; }
    if (from) { stroke(from, to); from = to; }
  };
  image.onpointerup = image.onpointercancel = () => (from = null);
  image.onpointerleave = () => { if (!drawing) coverAt(null); };
  image.onkeydown = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") coverAt(null);
    if (!step || drawing) return;
    event.preventDefault();
    const px = occluderPx() / 2, { row, column } = state.covered ?? { row: side / 2, column: side / 2 };
    const inside = (value) => Math.min(side, Math.max(0, value));
    coverAt({ row: inside(row + step[0] * px), column: inside(column + step[1] * px) });
  };
}

/** Covers a spot of the image with gray; null removes the square. */
function coverAt(position) {
  if (!state.pixels || occlusion || (!position && !state.covered)) return;
  state.covered = position;
  compute();
}

let drawing = false;
function setDrawing(on) {
  drawing = on;
  document.body.classList.toggle("drawing", on);
  element("draw").setAttribute("aria-pressed", on);
  element("pens").hidden = !on;
  element("note").textContent = on ? "Draw on the image." : NOTE;
  return on;
}

/** Takes the canvas as the image. */
function takeDrawing() {
  const side = state.page.crop_px, rgba = element("image").getContext("2d").getImageData(0, 0, side, side).data;
  return present(Uint8Array.from({ length: 3 * side ** 2 }, (_, at) => rgba[4 * Math.floor(at / 3) + (at % 3)]), false);
}

function fill(color) {
  stopOcclusion();
  showProblem(null);
  const context = Object.assign(element("image").getContext("2d"), { fillStyle: color });
  context.fillRect(0, 0, state.page.crop_px, state.page.crop_px);
  takeDrawing();
}

function stroke(from, to) {
  const pen = { strokeStyle: element("pen").value, lineWidth: state.page.crop_px / 18, lineCap: "round" };
  const context = Object.assign(element("image").getContext("2d"), pen);
  context.beginPath();
  context.moveTo(from.column, from.row);
  context.lineTo(to.column, to.row);
  context.stroke();
  takeDrawing();
}

let stream = null;
function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("video").hidden = true;
  element("photograph").textContent = "Photograph";
}

/** The first click shows the camera, the second takes the photograph. */
async function photograph() {
  const video = element("video");
  if (stream) return open(await createImageBitmap(video), "The photograph");
  if (!navigator.mediaDevices) throw new Error("browsers allow the camera only on https: and localhost.");
  stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  video.srcObject = stream;
  video.hidden = false;
  await video.play();
  element("photograph").textContent = "Take it";
}

let occlusion = null;
function stopOcclusion() {
  if (occlusion) worker.ask("cancel", { which: occlusion });
  occlusion = null;
  element("heat").hidden = true;
  element("occlusion").textContent = "Occlusion map";
  element("loading").hidden = true;
}

/** Covers each position of a grid in turn, and shades the image where that reduces the answer's probability most. */
async function mapOcclusion() {
  coverAt(null);
  await computing;
  const { page, result: { probabilities } } = state, [label] = largest(probabilities, 1), count = 14;
  element("occlusion").textContent = "Stop";
  element("step").textContent = "Covering one position after another …";
  element("loading").hidden = element("progress").hidden = false;
  element("progress").value = 0;
  const asked = worker.ask("occlude", { pixels: state.pixels, gates: state.gates, size: occluderPx(), count, label },
    (done) => (element("progress").value = done));
  occlusion = worker.last;
  const map = await asked;
  if (!map) return;
  stopOcclusion();
  const [least, most] = [Math.min(...map), Math.max(...map)];
  const small = new OffscreenCanvas(count, count);
  paint(small, (at) => pack(190, 20, 10, most > least ? (255 * (most - map[at])) / (most - least) : 0));
  const heat = element("heat").getContext("2d");
  heat.clearRect(0, 0, page.crop_px, page.crop_px);
  heat.imageSmoothingQuality = "high";
  heat.drawImage(small, 0, 0, page.crop_px, page.crop_px);
  state.occlusion = map;
  element("heat").hidden = false;
  element("status").classList.remove("quiet");
  element("status").textContent = `${page.classes[label]}, ${percent(probabilities[label])}: between ${percent(least)} and ` +
    `${percent(most)} with a spot covered. Red marks where covering costs most.`;
}

start();
