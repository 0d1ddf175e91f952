// The page, and in its worker the network: this module is loaded twice. globalThis.alexnet is for the console.

const element = (id) => document.getElementById(id);
/** A new element with properties and children. */
function make(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
const percent = (p) => `${(100 * p).toFixed(p > 0.0995 || p === 0 ? 0 : 1)} %`;

/** Fetches a file, with reports of its progress if wanted. Not from the cache without a checksum: it may be exported anew. */
async function fetchBytes({ url, integrity = "", cache = integrity ? "default" : "no-cache" }, size = 0, report = null) {
  const response = await fetch(url, { integrity, cache }).catch((error) => ({ status: "", statusText: error.message }));
  if (!response.ok) throw new Error(`${url} could not be loaded: ${response.status} ${response.statusText}`);
  if (!report) return response.arrayBuffer();
  const bytes = new Uint8Array(size), reader = response.body.getReader();
  for (let at = 0, part; !(part = await reader.read()).done; at += part.value.length) {
    bytes.set(part.value, at);
    report(at / size);
  }
  return bytes;
}

// ------------------------------------------------------------------------------------------------- in the worker

function startWorker() {
  let session, page, ort, queue = Promise.resolve();
  const cancelled = new Set();

  async function load(description, report) {
    page = description;
    if (typeof WebAssembly !== "object") {
      throw new Error("This browser has no WebAssembly, or it is switched off: the network can't be computed here.");
    }
    const [module, wasm, model] = await Promise.all([
      ...page.runtime.map((file) => fetchBytes(file)),
      fetchBytes({ url: "model.onnx" }, page.model_bytes, report),
    ]);
    ort = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
    // Threads need headers that a plain server does not send.
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm });
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  }

  /** The network's pixels of an encoded or a decoded image: Uint8Array (side, side, 3), as in training. */
  async function readPixels(image) {
    if (image instanceof Blob) {
      if (!page.exif_orientation) image = new Blob([withoutOrientation(new Uint8Array(await image.arrayBuffer()))]);
      image = await createImageBitmap(image, { colorSpaceConversion: "none" }).catch(() => {
        throw new Error("it is not an image that this browser can read.");
      });
    }
    const side = page.resize === "warp" ? Infinity : Math.min(image.width, image.height); // all of it, or its central square
    const width = Math.min(image.width, side), height = Math.min(image.height, side);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white"; // what transparent images are laid on
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

  /** Runs the network, one run after another. Its outputs as arrays by name: all, or the probabilities alone. */
  function run({ pixels, gates, all }) {
    const feeds = {
      pixels: new ort.Tensor("float32", Float32Array.from(pixels), [1, page.crop_px, page.crop_px, 3]),
      gates: new ort.Tensor("float32", Float32Array.from(gates), [1, page.columns]),
    };
    const result = queue.then(async () => {
      const outputs = await session.run(feeds, all ? undefined : ["probabilities"]);
      return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
    });
    queue = result.catch(() => {});
    return result;
  }

  /** The probability of a class with a gray square at each place of a grid: Float32Array (count, count), or null. */
  async function occlude({ id, pixels, gates, size, count, label }, report) {
    const map = new Float32Array(count ** 2);
    for (let place = 0; place < map.length; place++) {
      await new Promise((resolve) => setTimeout(resolve)); // lets other messages in
      if (cancelled.delete(id)) return null;
      const center = (index) => ((index + 0.5) * page.crop_px) / count;
      const covered = cover(pixels, page.crop_px, center(Math.floor(place / count)), center(place % count), size);
      map[place] = (await run({ pixels: covered, gates })).probabilities[label];
      report((place + 1) / map.length);
    }
    return map;
  }

  const tasks = {
    load: (message, report) => load(message.page, report),
    read: (message) => readPixels(message.image),
    run,
    occlude,
    cancel: (message) => void cancelled.add(message.which),
  };
  onmessage = async ({ data }) => {
    const report = (progress) => postMessage({ id: data.id, progress });
    try {
      postMessage({ id: data.id, result: await tasks[data.task](data, report) });
    } catch (error) {
      postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  };
}

/** A copy of pixels with a gray square around a point, as Zeiler and Fergus (2013) covered them. */
function cover(pixels, side, row, column, size) {
  const covered = pixels.slice();
  const [top, left] = [row, column].map((center) => Math.round(center - size / 2));
  for (let y = Math.max(top, 0); y < Math.min(top + size, side); y++) {
    covered.fill(128, 3 * (y * side + Math.max(left, 0)), 3 * (y * side + Math.min(left + size, side)));
  }
  return covered;
}

/** The taps of TensorFlow's antialiased triangle filter: for each output, its first input and its weights. */
function taps(from, to) {
  const step = from / to, width = Math.max(step, 1);
  return Array.from({ length: to }, (_, index) => {
    const center = (index + 0.5) * step;
    const first = Math.max(Math.ceil(center - width - 0.5), 0);
    const last = Math.min(Math.floor(center + width - 0.5), from - 1);
    const weights = [];
    for (let at = first; at <= last; at++) weights.push(Math.max(0, 1 - Math.abs(at + 0.5 - center) / width));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Resizes RGBA pixels to a square of RGB ones, as training does: a canvas resizes with other filters. */
function resize(pixels, width, height, to) {
  const filter = taps(width, to);
  const rows = new Float32Array(to * width * 3);
  taps(height, to).forEach(({ first, weights }, row) => {
    const output = rows.subarray(row * width * 3, (row + 1) * width * 3);
    weights.forEach((weight, tap) => {
      for (let column = 0, at = (first + tap) * width * 4, out = 0; column < width; column++, at++) {
        for (let channel = 0; channel < 3; channel++) output[out++] += weight * pixels[at++];
      }
    });
  });
  const result = new Uint8ClampedArray(to * to * 3); // which rounds to even, as TensorFlow does
  for (let row = 0, out = 0; row < to; row++) {
    for (const { first, weights } of filter) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0, at = 3 * (row * width + first) + channel;
        for (const weight of weights) { sum += weight * rows[at]; at += 3; }
        result[out++] = sum;
      }
    }
  }
  return result;
}

/** A JPEG whose EXIF data no program recognizes, for networks whose training images were not turned upright. */
function withoutOrientation(bytes) {
  for (let at = 2; bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[at] === 0xff && bytes[at + 1] !== 0xda; ) {
    if (bytes[at + 1] === 0xe1) bytes[at + 4] = 0;
    at += 2 + 256 * bytes[at + 2] + bytes[at + 3];
  }
  return bytes;
}

// ----------------------------------------------------------------------------------------------------- in the page

const cellAt = (offset, length, count) => Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
let page, kernels, strongest;
const state = { pixels: null, gates: [], result: null, whole: null, halves: null, covered: null, selected: null };
const sprites = {}, canvases = {};

const worker = { waiting: new Map(), last: 0 };
/** Gives the worker a task; resolves to its result. */
worker.ask = (task, message = {}, report = null, transfer = []) => new Promise((resolve, reject) => {
  const id = ++worker.last;
  worker.waiting.set(id, { resolve, reject, report });
  worker.port.postMessage({ task, id, ...message }, transfer);
});

function showProblem(error) {
  element("problem").textContent = error ? String(error.message ?? error) : "";
  element("problem").hidden = !error;
}

async function startPage() {
  globalThis.alexnet = state;
  addEventListener("unhandledrejection", (event) => showProblem(event.reason));
  element("progress").hidden = false;
  element("step").textContent = "Loading the network …";
  worker.port = new Worker(import.meta.url, { type: "module" });
  worker.port.onerror = (event) => showProblem(`The network's worker failed: ${event.message ?? "it could not start"}`);
  worker.port.onmessage = ({ data }) => {
    const { resolve, reject, report } = worker.waiting.get(data.id);
    if ("progress" in data) return report(data.progress);
    worker.waiting.delete(data.id);
    return data.error ? reject(new Error(data.error)) : resolve(data.result);
  };
  try {
    page = JSON.parse(new TextDecoder().decode(await fetchBytes({ url: "page.json", cache: "no-store" })));
    describe();
    build();
    element("step").textContent = `Loading the network, ${Math.round(page.model_bytes / 1e6)} MB …`;
    [, kernels, strongest] = await Promise.all([
      worker.ask("load", { page }, (done) => (element("progress").value = done)),
      fetchBytes({ url: "kernels.bin" }).then((bytes) => new Int8Array(bytes)),
      page.data && fetchBytes({ url: "strongest.bin" }).then((bytes) => new Uint16Array(bytes)),
    ]);
  } catch (error) {
    return showProblem(error);
  } finally {
    element("loading").hidden = true;
  }
  listen();
  if (page.examples.length) await openExample(page.examples[0]);
}

const openExample = async ({ url, label }) => open(new Blob([await fetchBytes({ url })]), page.classes[label]);

/** Fills in what is known before the network is loaded. */
function describe() {
  const source = page.data;
  element("source").textContent = source ? `Examples and training images: ${source.source}. ` : "";
  if (source?.license) element("source").append(make("a", { href: source.license, textContent: "License" }));
  element("model").textContent = `AlexNet (Krizhevsky, Sutskever and Hinton, 2012), ${page.title}: ` +
    `${page.parameters.toLocaleString("en")} parameters, ${page.classes.length.toLocaleString("en")} classes. ` +
    (source ? `The strongest images are of ${source.searched.toLocaleString("en")} training images.` : "");
  element("offline").textContent = page.runtime.every(({ url }) => !url.includes("://"))
    ? "The page works offline." : `Its runtime, onnxruntime-web, is loaded from ${new URL(page.runtime[0].url).host}.`;
  page.examples.forEach((example) => {
    const title = page.classes[example.label], image = make("img", { src: example.url, alt: title });
    element("examples").append(make("button", { type: "button", title, onclick: () => openExample(example) }, [image]));
  });
  for (const id of ["image", "heat"]) Object.assign(element(id), { width: page.crop_px, height: page.crop_px });
  element("image").setAttribute("aria-label", `The network's ${page.crop_px} by ${page.crop_px} pixels. ` +
    "Arrow keys move a gray square over them, Escape takes it away.");
}

/** Builds the columns of figure 2: a canvas for each layer of each column, and the connections between them. */
function build() {
  const network = element("network"), add = (tag, name, variables) => {
    const made = tag === "svg" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    made.setAttribute("class", name);
    for (const [key, value] of Object.entries(variables)) made.style.setProperty(`--${key}`, value);
    network.append(made);
    return made;
  };
  network.style.setProperty("--columns", page.columns);
  state.gates = Array(page.columns).fill(1);
  for (let column = 0; column < page.columns && page.columns > 1; column++) {
    const label = add("label", "switch", { column: column + 1, key: `var(--bar-${column + 1})` });
    const input = make("input", { type: "checkbox", checked: true, id: `column-${column + 1}` });
    input.setAttribute("role", "switch");
    input.onchange = () => { state.gates[column] = Number(input.checked); stopOcclusion(); compute(); };
    label.append(input, `Column ${column + 1}`);
  }
  const lines = (from, to) => from.flatMap((a) => to.map((b) => [a, b]));
  const middles = state.gates.map((_, column) => ((column + 0.5) * 100) / page.columns);
  const connect = (i, pairs) => {
    const svg = add("svg", "", { i });
    svg.setAttribute("viewBox", "0 0 100 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.innerHTML = `<path class="across" d="${pairs.map(([a, b]) => `M0 ${a}L100 ${b}`).join("")}"/>` +
      `<path class="down" d="${pairs.map(([a, b]) => `M${a} 0L${b} 100`).join("")}"/>`;
  };
  page.layers.forEach((layer, i) => {
    const own = middles.map((middle) => [middle, middle]);
    connect(i, i && layer.connected === "own" ? own : lines(i ? middles : [50], middles));
    layer.perColumn = layer.maps / page.columns;
    const ideal = Math.sqrt((layer.perColumn * 4) / 3); // rows, so that most are about three quarters as wide as high
    const divisors = Array.from({ length: layer.perColumn }, (_, k) => k + 1).filter((k) => layer.perColumn % k === 0);
    layer.rows = divisors.reduce((best, k) => (Math.abs(k - ideal) < Math.abs(best - ideal) ? k : best));
    layer.columns = layer.perColumn / layer.rows;
    layer.gap = Number(layer.side > 1); // pixels between maps; units have none
    layer.pitch = layer.side + layer.gap;
    canvases[layer.name] = state.gates.map((_, column) => {
      const [width, height] = [layer.columns, layer.rows].map((count) => count * layer.pitch - layer.gap);
      const canvas = make("canvas", { id: `${layer.name}-${column + 1}`, tabIndex: 0, width, height });
      if (layer.side === 1) canvas.className = "units";
      add("div", "layer", { i, column: column + 1 }).append(canvas);
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-roledescription", "feature maps");
      canvas.setAttribute("aria-label", `${layer.name}, column ${column + 1}: ${layer.perColumn} ` +
        (layer.side > 1 ? `maps of ${layer.side} by ${layer.side}` : "units") + ". Arrow keys choose one.");
      canvas.onpointermove = canvas.onpointerdown = (event) => {
        const box = canvas.getBoundingClientRect();
        const row = cellAt(event.clientY - box.top, box.height, layer.rows);
        const place = row * layer.columns + cellAt(event.clientX - box.left, box.width, layer.columns);
        select(layer, column * layer.perColumn + place);
      };
      canvas.onpointerleave = canvas.onblur = () => (element("field").hidden = true);
      canvas.onfocus = () => { if (canvas.matches(":focus-visible")) moveBy(0); };
      const moveBy = (step) => {
        const chosen = state.selected?.layer === layer ? state.selected.map - column * layer.perColumn : 0;
        const next = (chosen >= 0 && chosen < layer.perColumn ? chosen : 0) + step;
        if (next < 0 || next >= layer.perColumn) return;
        select(layer, column * layer.perColumn + next);
        element("status").textContent = element("map-caption").textContent;
      };
      canvas.onkeydown = (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layer.columns, ArrowDown: layer.columns }[event.key];
        if (step) { event.preventDefault(); moveBy(step); }
      };
      return canvas;
    });
    const size = layer.side > 1 ? ["maps", make("br"), `${layer.side} × ${layer.side}`] : ["units"];
    add("div", "caption", { i }).append(
      make("strong", { textContent: layer.name }), make("br"), `${layer.perColumn.toLocaleString("en")} `, ...size);
  });
  connect(page.layers.length, lines(middles, [50]));
  network.style.setProperty("--layers", page.layers.length);
  network.style.setProperty("--aspect", page.layers.reduce((sum, { columns, rows }) => sum + columns / rows, 0));
}

// ------------------------------------------------------------------------------------------------- what is computed

/** Opens an image: a file, or a frame of the camera. */
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

/** Shows new pixels: the layers light up one after another. */
function present(pixels, light = true) {
  Object.assign(state, { pixels, covered: null, halves: null, occlusion: null });
  element("network").classList.remove("lit");
  void element("network").offsetWidth; // restarts the animation
  element("network").classList.toggle("lit", light);
  return compute();
}

let wanted = false, computing = null;
/** Computes the image as it now is. While one is computed, further ones wait, and only the last is computed. */
function compute() {
  wanted = true;
  computing ??= (async () => {
    try {
      while (wanted && state.pixels) {
        wanted = false;
        const { pixels, gates, covered } = state;
        const shown = covered ? cover(pixels, page.crop_px, covered.row, covered.column, occluderPx()) : pixels;
        paint(element("image"), (at) => pack(shown[3 * at], shown[3 * at + 1], shown[3 * at + 2]));
        const job = { pixels: shown, gates: [...gates] };
        state.result = await worker.ask("run", { ...job, all: true });
        render(job);
        if (!covered && !state.halves && page.columns > 1 && !wanted) {
          const answers = [], on = Array.from({ length: page.columns + 1 }, (_, which) => // all of them, then each alone
            job.gates.map((_, column) => Number(which === 0 || column === which - 1)));
          for (const gates of on) answers.push((await worker.ask("run", { pixels, gates })).probabilities);
          if (state.pixels === pixels) { state.halves = answers; renderAnswer(job); }
        }
      }
    } finally { computing = null; }
  })();
  return computing;
}

const occluderPx = () => Math.round(page.crop_px / 7);

// --------------------------------------------------------------------------------------------------- what is drawn

/** A color in 32 bits, as canvases store it: millions are painted for each image. */
const pack = (red, green, blue, alpha = 255) =>
  (Math.round(alpha) << 24) | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red);

/** Paints a canvas, whose pixel `at` has the packed color `color(at)`. */
function paint(canvas, color) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const colors = new Int32Array(image.data.buffer);
  for (let at = 0; at < colors.length; at++) colors[at] = color(at);
  context.putImageData(image, 0, 0);
}

/** The color of a variable of the stylesheet. */
function ink(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** 256 colors from the plate to a column's strongest ink. */
function ramp(column) {
  const stops = ["--plate", `--mid-${1 + (column % 2)}`, `--top-${1 + (column % 2)}`].map(ink);
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * 2, at = Math.min(1, Math.floor(place));
    return pack(...stops[at].map((from, channel) => from + (place - at) * (stops[at + 1][channel] - from)));
  });
}

/** Draws what a job resulted in. */
function render(job) {
  for (const layer of page.layers) {
    const values = state.result[layer.output], area = layer.side ** 2;
    // A map's own scale hides which are strong, the layer's hides the weak: between the two, by its square root.
    layer.largest = new Float32Array(layer.maps);
    for (let map = 0, at = 0; map < layer.maps; map++) {
      for (const end = at + area; at < end; at++) layer.largest[map] = Math.max(layer.largest[map], Math.abs(values[at]));
    }
    const sorted = layer.largest.toSorted(), top = sorted.at(0.98 * layer.maps) || sorted.at(-1) || 1;
    canvases[layer.name].forEach((canvas, column) => {
      canvas.parentElement.classList.toggle("off", !job.gates[column]);
      const colors = ramp(column), first = column * layer.perColumn;
      paint(canvas, (at) => {
        const x = at % canvas.width, y = (at - x) / canvas.width, inX = x % layer.pitch, inY = y % layer.pitch;
        if (inX === layer.side || inY === layer.side) return 0; // transparent
        const map = first + ((y - inY) / layer.pitch) * layer.columns + (x - inX) / layer.pitch;
        return colors[Math.min(255, Math.round(255 * Math.sqrt(Math.abs(values[map * area + inY * layer.side + inX]) / top)))];
      });
    });
  }
  renderAnswer(job);
  const first = page.layers.findLast(({ side }) => side > 1) ?? page.layers[0]; // shown until another is pointed at
  const { layer, map } = state.selected ?? { layer: first, map: best(first.largest, 1)[0] };
  select(layer, map, true);
  element("occlusion").disabled = false;
}

const best = (values, count) => Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, count);

/** Writes the five most probable classes, each with a bar for all columns and for each alone, and what each knows. */
function renderAnswer(job) {
  const { probabilities } = state.result, halves = state.covered ? null : state.halves;
  element("top").replaceChildren(...best(probabilities, 5).map((label) => {
    const bars = make("div", { className: "bars" });
    for (const each of [probabilities, ...(halves ?? []).slice(1)]) {
      const bar = make("i");
      bar.style.width = `${100 * each[label]}%`;
      bars.append(bar);
    }
    const texts = [make("span", { textContent: page.classes[label] }), make("b", { textContent: percent(probabilities[label]) })];
    return make("li", {}, [...texts, bars]);
  }));
  const on = job.gates.flatMap((gate, column) => (gate ? [column + 1] : []));
  const some = on.length ? `Column ${on.join(", ")} alone: ` : "With every column off, the classifier's biases: ";
  const who = on.length === page.columns ? "" : some;
  const [first] = best(probabilities, 1), answer = `${who}${page.classes[first]}, ${percent(probabilities[first])}`;
  element("status").textContent = state.covered ? "A spot is covered." : answer;
  element("status").classList.toggle("quiet", !who && !state.covered); // the list shows it
  element("halves").hidden = !halves;
  if (halves) {
    element("knows").replaceChildren(...halves.flatMap((each, index) => {
      const term = make("dt", { textContent: index ? `Column ${index} alone` : "Both columns" }), [top] = best(each, 1);
      if (index) term.style.setProperty("--key", `var(--bar-${index})`);
      return [term, make("dd", { textContent: `${page.classes[top]}, ${percent(each[top])}` })];
    }));
  }
}

/** Enlarges a map, with its kernel, its receptive field and the training images that excite it most. */
function select(layer, map, quietly = false) {
  if (!state.result) return;
  const column = Math.floor(map / layer.perColumn), inColumn = map % layer.perColumn, area = layer.side ** 2;
  const changed = state.selected?.layer !== layer || state.selected.map !== map;
  state.selected = { layer, map };
  const values = state.result[layer.output].subarray(map * area, (map + 1) * area);
  const canvas = element("map"), colors = ramp(column);
  canvas.width = canvas.height = layer.side;
  paint(canvas, (at) => colors[Math.round((255 * Math.abs(values[at])) / (layer.largest[map] || 1))]);
  const peak = values.reduce((best, value, at) => (Math.abs(value) > Math.abs(values[best]) ? at : best), 0);
  const { size, step, start } = layer.field;
  element("map-caption").textContent = `${layer.name}, ${layer.side > 1 ? "map" : "unit"} ${inColumn + 1} of ${layer.perColumn}` +
    `${page.columns > 1 ? ` in column ${column + 1}` : ""}; ${layer.side > 1 ? "strongest " : ""}${values[peak].toPrecision(3)}` +
    (size < page.crop_px ? `. A unit sees ${size} × ${size} pixels.` : ". It sees the whole image.");
  if (!quietly) outline(layer, peak);
  canvas.onpointermove = (event) => {
    const row = cellAt(event.offsetY, canvas.clientHeight, layer.side);
    outline(layer, row * layer.side + cellAt(event.offsetX, canvas.clientWidth, layer.side));
  };
  canvas.onpointerleave = () => (element("field").hidden = true);
  if (changed) { mark(layer, column, inColumn); drawKernel(layer, map); drawStrongest(layer, map); }
}

/** Outlines on the image what a unit of a layer depends on. */
function outline(layer, unit) {
  const { size, step, start } = layer.field, box = element("field"), share = (px) => `${(100 * px) / page.crop_px}%`;
  Object.assign(box.style, {
    top: share(start + Math.floor(unit / layer.side) * step), left: share(start + (unit % layer.side) * step),
    width: share(size), height: share(size),
  });
  box.hidden = false;
}

/** Marks a map among those of its layer. */
function mark(layer, column, map) {
  document.querySelector(".mark")?.remove();
  const box = make("div", { className: "mark" });
  Object.assign(box.style, {
    left: `${(100 * (map % layer.columns)) / layer.columns}%`, top: `${(100 * Math.floor(map / layer.columns)) / layer.rows}%`,
    width: `${100 / layer.columns}%`, height: `${100 / layer.rows}%`,
  });
  canvases[layer.name][column].parentElement.append(box);
}

/** Draws a kernel: in color over pixels, else a square for each map below it, orange where it excites, blue where it inhibits. */
function drawKernel(layer, map) {
  element("kernel-figure").hidden = !layer.kernel;
  if (!layer.kernel) return;
  const { offset, channels, side } = layer.kernel, color = channels === 3, canvas = element("kernel");
  const columns = color ? 1 : Math.ceil(Math.sqrt(channels)), pitch = color ? side : side + 1;
  canvas.width = canvas.height = columns * pitch;
  const value = (channel, y, x) => kernels[offset + ((map * channels + channel) * side + y) * side + x] / 127;
  const plate = ink("--plate"), inks = ["--bar-2", "--bar-1"].map(ink);
  paint(canvas, (at) => {
    const x = at % canvas.width, y = Math.floor(at / canvas.width);
    if (color) return pack(...[0, 1, 2].map((channel) => 127.5 * (1 + value(channel, y, x))));
    const channel = Math.floor(y / pitch) * columns + Math.floor(x / pitch);
    if (channel >= channels || x % pitch === side || y % pitch === side) return pack(...plate);
    const weight = value(channel, y % pitch, x % pitch), toward = inks[Number(weight < 0)];
    return pack(...plate.map((from, index) => from + Math.abs(weight) * (toward[index] - from)));
  });
  element("kernel-caption").textContent = color
    ? `Its kernel: ${side} × ${side} pixels in color`
    : `Its kernel: ${side} × ${side} of each of ${channels} maps; orange excites, blue inhibits`;
}

async function drawStrongest(layer, map) {
  element("strongest-figure").hidden = !layer.strongest;
  if (!layer.strongest) return;
  const { url, offset, images, cell_px: px, cells_per_row: perRow } = layer.strongest;
  const sprite = (sprites[url] ??= Object.assign(new Image(), { src: url }));
  await sprite.decode();
  if (state.selected.layer !== layer || state.selected.map !== map) return;
  element("strongest").replaceChildren(...Array.from({ length: images }, (_, index) => {
    const [cell, label] = strongest.subarray(offset + 2 * (map * images + index));
    const canvas = make("canvas", { width: px, height: px });
    canvas.getContext("2d").drawImage(sprite, (cell % perRow) * px, Math.floor(cell / perRow) * px, px, px, 0, 0, px, px);
    return make("figure", {}, [canvas, make("figcaption", { textContent: page.classes[label] })]);
  }));
}

// --------------------------------------------------------------------------------------------- what the reader does

function listen() {
  const image = element("image");
  element("file").onchange = ({ target }) => {
    if (target.files[0]) open(target.files[0], target.files[0].name);
    target.value = ""; // so that the same file can be chosen again
  };
  element("photograph").onclick = () => photograph().catch((error) => {
    stopCamera();
    showProblem(`There is no photograph: ${error.message}`);
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
    return file ? open(file, file.name) : showProblem("What was dropped is no file. Save the image, then drop its file.");
  });
  let from = null;
  image.onpointerdown = image.onpointermove = (event) => {
    const scale = page.crop_px / image.clientWidth, to = { row: event.offsetY * scale, column: event.offsetX * scale };
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
    const px = occluderPx() / 2, { row, column } = state.covered ?? { row: page.crop_px / 2, column: page.crop_px / 2 };
    const inside = (value) => Math.min(page.crop_px, Math.max(0, value));
    coverAt({ row: inside(row + step[0] * px), column: inside(column + step[1] * px) });
  };
  matchMedia("(prefers-color-scheme: dark)").onchange = () => {
    if (!state.result) return;
    render({ gates: state.gates });
    if (state.selected) drawKernel(state.selected.layer, state.selected.map);
  };
}

/** Covers a spot of the image with gray, or none. */
function coverAt(place) {
  if (!state.pixels || occlusion || (!place && !state.covered)) return;
  state.covered = place;
  compute();
}

let drawing = false;
function setDrawing(on) {
  drawing = on;
  document.body.classList.toggle("drawing", on);
  element("draw").setAttribute("aria-pressed", on);
  element("pens").hidden = !on;
  element("note").textContent = on ? "Draw on the image." : "Drop an image anywhere. Point at it to cover a spot.";
  return on;
}

/** Takes what is on the canvas as the image. */
function takeDrawing() {
  const rgba = element("image").getContext("2d").getImageData(0, 0, page.crop_px, page.crop_px).data;
  return present(Uint8Array.from({ length: 3 * page.crop_px ** 2 }, (_, at) => rgba[4 * Math.floor(at / 3) + (at % 3)]), false);
}

function fill(color) {
  stopOcclusion();
  showProblem(null);
  const context = Object.assign(element("image").getContext("2d"), { fillStyle: color });
  context.fillRect(0, 0, page.crop_px, page.crop_px);
  takeDrawing();
}

function stroke(from, to) {
  const pen = { strokeStyle: element("pen").value, lineWidth: page.crop_px / 18, lineCap: "round" };
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

/** The first click shows what the camera sees, the second takes it. */
async function photograph() {
  const video = element("video");
  if (stream) {
    return open(await createImageBitmap(video), "The photograph");
  }
  if (!navigator.mediaDevices) throw new Error("a browser lends its camera to https: and localhost alone.");
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

/** Covers each place of a grid in turn, in the worker, and shades the image where that costs the answer most. */
async function mapOcclusion() {
  coverAt(null);
  await computing;
  const { probabilities } = state.result, [label] = best(probabilities, 1), count = 14;
  element("occlusion").textContent = "Stop";
  element("step").textContent = "Covering one place after another …";
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
    `${percent(most)} with a spot covered. Red is where it is missed most.`;
}

if (typeof document === "undefined") startWorker();
else startPage();
