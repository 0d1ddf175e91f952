// Computes the network in a worker, so that the page stays responsive.
import { download } from "./download.js";
import { cover, resize, withoutOrientation } from "./pixels.js";

let session, page, ort, queue = Promise.resolve();
let occlusions = 0; // started or cancelled: only the last one goes on

async function load(message, report) {
  page = message.page;
  if (typeof WebAssembly !== "object") {
    throw new Error("This browser has no WebAssembly, or it is disabled: the network can't run here.");
  }
  const [module, wasm, model] = await Promise.all([
    ...page.runtime.map((file) => download(file)),
    download({ url: "model.onnx" }, page.model_bytes, report),
  ]);
  ort = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  // Threads need headers that a plain server does not send.
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm });
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** The network's input for an encoded or a decoded image: Uint8Array (crop_px, crop_px, 3), as in training. */
async function read({ image }) {
  if (image instanceof Blob) {
    if (!page.exif_orientation) image = new Blob([withoutOrientation(new Uint8Array(await image.arrayBuffer()))]);
    image = await createImageBitmap(image, { colorSpaceConversion: "none" }).catch(() => {
      throw new Error("it is not an image that this browser can read.");
    });
  }
  const side = page.resize === "warp" ? Infinity : Math.min(image.width, image.height); // the whole image or its central square
  const width = Math.min(image.width, side), height = Math.min(image.height, side);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind transparent images
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, -Math.floor((image.width - width) / 2), -Math.floor((image.height - height) / 2));
  const square = resize(context.getImageData(0, 0, width, height).data, width, height, page.image_px);
  const start = Math.floor((page.image_px - page.crop_px) / 2);
  const pixels = new Uint8Array(3 * page.crop_px ** 2);
  for (let row = 0; row < page.crop_px; row++) {
    const first = 3 * ((start + row) * page.image_px + start);
    pixels.set(square.subarray(first, first + 3 * page.crop_px), 3 * row * page.crop_px);
  }
  return pixels;
}

/** Runs the network. Returns its outputs as arrays by name: all of them, or only the probabilities. */
function run({ pixels, gates, all }) {
  const feeds = {
    pixels: new ort.Tensor("float32", Float32Array.from(pixels), [1, page.crop_px, page.crop_px, 3]),
    gates: new ort.Tensor("float32", Float32Array.from(gates), [1, page.columns]),
  };
  const result = queue.then(async () => { // the session runs once at a time
    const outputs = await session.run(feeds, all ? undefined : ["probabilities"]);
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  });
  queue = result.catch(() => {});
  return result;
}

/** The probability of a class with a gray square at each position of a grid: Float32Array (count, count), or null. */
async function occlude({ pixels, gates, size, count, label }, report) {
  const map = new Float32Array(count ** 2), current = ++occlusions;
  for (let position = 0; position < map.length; position++) {
    await new Promise((resolve) => setTimeout(resolve)); // lets other messages in
    if (current !== occlusions) return null;
    const center = (index) => ((index + 0.5) * page.crop_px) / count;
    const covered = cover(pixels, page.crop_px, center(Math.floor(position / count)), center(position % count), size);
    map[position] = (await run({ pixels: covered, gates })).probabilities[label];
    report((position + 1) / map.length);
  }
  return map;
}

const tasks = { load, read, run, occlude, cancel: () => void occlusions++ };
onmessage = async ({ data }) => {
  const report = (progress) => postMessage({ id: data.id, progress });
  try {
    postMessage({ id: data.id, result: await tasks[data.task](data, report) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
