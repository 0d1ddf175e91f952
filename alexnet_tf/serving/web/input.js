// Takes images: files, examples, the camera, drawings; and covers spots of them.
import { pack, paint } from "./colors.js";
import { ask, compute, render } from "./compute.js";
import { describeDifferences } from "./pixels.js";
import { element, largest, occluderPx, percent, showProblem, state, TOUCH } from "./state.js";

export const NOTE = `${TOUCH} the image to cover a spot, or drop another one.`;

/** Opens an image: a file or a frame of the camera. */
export async function open(image, name = "The image") {
  stopCamera();
  try {
    const pixels = await ask("read", { image });
    setDrawing(false);
    showProblem(null);
    return present(pixels);
  } catch (error) {
    showProblem(`${name} can't be shown: ${error.message}`);
  }
}

/** Shows new pixels. The layers light up one after another. */
function present(pixels, light = true) {
  stopOcclusion();
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

export function listen() {
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
  element("occlusion").onclick = () => (occluding ? stopOcclusion() : mapOcclusion());
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
  if (!state.pixels || occluding || (!position && !state.covered)) return;
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

let occluding = false;
export function stopOcclusion() {
  if (occluding) ask("cancel");
  occluding = false;
  element("heat").hidden = true;
  element("occlusion").textContent = "Occlusion map";
  element("loading").hidden = true;
}

/** Covers each position of a grid in turn, and shades the image where that reduces the answer's probability most. */
async function mapOcclusion() {
  state.covered = null;
  occluding = true;
  element("occlusion").textContent = "Stop";
  element("step").textContent = "Covering one position after another …";
  element("loading").hidden = element("progress").hidden = false;
  element("progress").value = 0;
  await compute();
  if (!occluding) return;
  const { page, result: { probabilities } } = state, [label] = largest(probabilities, 1), count = 14;
  const map = await ask("occlude", { pixels: state.pixels, gates: state.gates, size: occluderPx(), count, label },
    (done) => (element("progress").value = done));
  if (!map || !occluding) return;
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
