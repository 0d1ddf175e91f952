// The network as in figure 2: for each layer and column a canvas with its feature maps.
import { ink, pack, paint, ramp } from "./colors.js";
import { element, largest, make, state } from "./state.js";

const canvases = {}; // by a layer's name, one for each column
const sprites = {};
const cellAt = (offset, length, count) => Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));

/** Builds the canvases and the connections between them, whose layout is in page.json. */
export function build(onGate) {
  const { page } = state, network = element("network");
  network.style.setProperty("--columns", page.columns);
  network.style.setProperty("--layers", page.layers.length);
  network.style.setProperty("--aspect", page.layers.reduce((sum, { grid: [rows, columns] }) => sum + columns / rows, 0));
  state.gates = Array(page.columns).fill(1);
  for (let column = 0; column < page.columns && page.columns > 1; column++) addSwitch(column, onGate);
  page.layers.forEach((layer, i) => {
    connect(i, layer.connections, i ? page.layers[i - 1].boxes : 1, layer.boxes);
    addLayer(layer, i);
  });
  connect(page.layers.length, page.classifier_connections, page.layers.at(-1).boxes, 1);
}

function add(tag, name, variables) {
  const made = tag === "svg" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  made.setAttribute("class", name);
  for (const [key, value] of Object.entries(variables)) made.style.setProperty(`--${key}`, value);
  element("network").append(made);
  return made;
}

function addSwitch(column, onGate) {
  const label = add("label", "switch", { column: column + 1, key: `var(--bar-${column + 1})` });
  const input = make("input", { type: "checkbox", checked: true, id: `column-${column + 1}` });
  input.setAttribute("role", "switch");
  input.onchange = () => { state.gates[column] = Number(input.checked); onGate(); };
  label.append(input, `Column ${column + 1}`);
}

/** Draws lines from boxes of a layer to those of the next: across, and for narrow windows down. */
function connect(i, connections, boxesBelow, boxes) {
  const lines = connections.map(([a, b]) => [((a + 0.5) * 100) / boxesBelow, ((b + 0.5) * 100) / boxes]);
  const svg = add("svg", "", { i });
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = `<path class="across" d="${lines.map(([a, b]) => `M0 ${a}L100 ${b}`).join("")}"/>` +
    `<path class="down" d="${lines.map(([a, b]) => `M${a} 0L${b} 100`).join("")}"/>`;
}

function addLayer(layer, i) {
  [layer.rows, layer.columns] = layer.grid;
  layer.perBox = layer.maps / layer.boxes;
  layer.gap = Number(layer.side > 1); // pixels between maps; units have none
  layer.pitch = layer.side + layer.gap;
  canvases[layer.name] = Array.from({ length: layer.boxes }, (_, box) => {
    const [width, height] = [layer.columns, layer.rows].map((count) => count * layer.pitch - layer.gap);
    const canvas = make("canvas", { id: `${layer.name}-${box + 1}`, tabIndex: 0, width, height });
    if (layer.side === 1) canvas.className = "units";
    add("div", "layer", { i, column: layer.boxes > 1 ? box + 1 : `1 / span ${state.page.columns}` }).append(canvas);
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "feature maps");
    canvas.setAttribute("aria-label", `${layer.name}, column ${box + 1}: ${layer.perBox} ` +
      (layer.side > 1 ? `maps of ${layer.side} by ${layer.side}` : "units") + ". Arrow keys choose one.");
    listen(canvas, layer, box);
    return canvas;
  });
  const size = layer.side > 1 ? ["maps", make("br"), `${layer.side} × ${layer.side}`] : ["units"];
  add("div", "caption", { i }).append(
    make("strong", { textContent: layer.name }), make("br"), `${layer.perBox.toLocaleString("en")} `, ...size);
}

function listen(canvas, layer, box) {
  const first = box * layer.perBox;
  canvas.onpointermove = canvas.onpointerdown = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const row = cellAt(event.clientY - bounds.top, bounds.height, layer.rows);
    select(layer, first + row * layer.columns + cellAt(event.clientX - bounds.left, bounds.width, layer.columns));
  };
  canvas.onpointerleave = canvas.onblur = () => (element("field").hidden = true);
  canvas.onfocus = () => { if (canvas.matches(":focus-visible")) moveBy(0); };
  const moveBy = (step) => {
    const chosen = state.selected?.layer === layer ? state.selected.map - first : 0;
    const next = (chosen >= 0 && chosen < layer.perBox ? chosen : 0) + step;
    if (next < 0 || next >= layer.perBox) return;
    select(layer, first + next);
    element("status").textContent = element("map-caption").textContent;
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layer.columns, ArrowDown: layer.columns }[event.key];
    if (step) { event.preventDefault(); moveBy(step); }
  };
}

/** Draws the maps of all layers, and the selected one enlarged. */
export function renderMaps(gates) {
  for (const layer of state.page.layers) {
    const values = state.result[layer.output], area = layer.side ** 2;
    layer.peaks = new Float32Array(layer.maps); // of each map, the largest absolute value
    for (let map = 0, at = 0; map < layer.maps; map++) {
      for (const end = at + area; at < end; at++) layer.peaks[map] = Math.max(layer.peaks[map], Math.abs(values[at]));
    }
    // A color scale for each map would hide which are strong, one for all maps the weak ones: one for all, by the square root.
    const sorted = layer.peaks.toSorted(), top = sorted.at(0.98 * layer.maps) || sorted.at(-1) || 1;
    canvases[layer.name].forEach((canvas, box) => {
      canvas.parentElement.classList.toggle("off", layer.boxes > 1 && !gates[box]);
      const colors = ramp(box), first = box * layer.perBox;
      paint(canvas, (at) => {
        const x = at % canvas.width, y = (at - x) / canvas.width, inX = x % layer.pitch, inY = y % layer.pitch;
        if (inX === layer.side || inY === layer.side) return 0; // transparent
        const map = first + ((y - inY) / layer.pitch) * layer.columns + (x - inX) / layer.pitch;
        return colors[Math.min(255, Math.round(255 * Math.sqrt(Math.abs(values[map * area + inY * layer.side + inX]) / top)))];
      });
    });
  }
  const last = state.page.layers.findLast(({ side }) => side > 1) ?? state.page.layers[0]; // until another is chosen
  const { layer, map } = state.selected ?? { layer: last, map: largest(last.peaks, 1)[0] };
  select(layer, map, true);
}

/** Enlarges a map, and shows its kernel, its receptive field and the training images that activate it most. */
export function select(layer, map, quietly = false) {
  if (!state.result) return;
  const box = Math.floor(map / layer.perBox), inBox = map % layer.perBox, area = layer.side ** 2;
  const changed = state.selected?.layer !== layer || state.selected.map !== map;
  state.selected = { layer, map };
  const values = state.result[layer.output].subarray(map * area, (map + 1) * area);
  const canvas = element("map"), colors = ramp(box);
  canvas.width = canvas.height = layer.side;
  paint(canvas, (at) => colors[Math.round((255 * Math.abs(values[at])) / (layer.peaks[map] || 1))]);
  const peak = values.reduce((best, value, at) => (Math.abs(value) > Math.abs(values[best]) ? at : best), 0);
  const { size } = layer.field;
  element("map-caption").textContent = `${layer.name}, ${layer.side > 1 ? "feature map" : "unit"} ${map}` + // as in the figures
    `${layer.boxes > 1 ? ` in column ${box + 1}` : ""}: ${layer.side > 1 ? "strongest " : ""}${values[peak].toPrecision(3)}` +
    (layer.peaks[map] === 0 ? " (silent)" : "") +
    (size < state.page.crop_px ? `. A unit sees ${size} × ${size} pixels.` : ". It sees the whole image.");
  if (!quietly) outline(layer, peak);
  canvas.onpointermove = (event) => {
    const row = cellAt(event.offsetY, canvas.clientHeight, layer.side);
    outline(layer, row * layer.side + cellAt(event.offsetX, canvas.clientWidth, layer.side));
  };
  canvas.onpointerleave = () => (element("field").hidden = true);
  if (changed) {
    mark(layer, box, inBox);
    drawKernel(layer, map);
    drawStrongest(layer, map);
  }
}

/** Outlines the receptive field of a unit on the image, and on a copy of it for narrow windows. */
function outline(layer, unit) {
  const { size, step, start } = layer.field, field = element("field"), side = state.page.crop_px;
  const share = (px) => `${(100 * px) / side}%`;
  const [top, left] = [Math.floor(unit / layer.side), unit % layer.side].map((position) => start + position * step);
  Object.assign(field.style, { top: share(top), left: share(left), width: share(size), height: share(size) });
  field.hidden = false;
  const copy = Object.assign(element("where"), { width: side, height: side }).getContext("2d");
  copy.drawImage(element("image"), 0, 0);
  Object.assign(copy, { strokeStyle: "#ff2d2d", lineWidth: side / 28 }).strokeRect(left, top, size, size);
}

/** Marks a map in its layer. */
function mark(layer, box, map) {
  document.querySelector(".mark")?.remove();
  const marker = make("div", { className: "mark" });
  Object.assign(marker.style, {
    left: `${(100 * (map % layer.columns)) / layer.columns}%`, top: `${(100 * Math.floor(map / layer.columns)) / layer.rows}%`,
    width: `${100 / layer.columns}%`, height: `${100 / layer.rows}%`,
  });
  canvases[layer.name][box].parentElement.append(marker);
}

/** Draws the kernel of a map: in color over pixels, otherwise a square for each of its input maps. */
export function drawKernel(layer, map) {
  element("kernel-figure").hidden = !layer.kernel;
  if (!layer.kernel) return;
  const { offset, channels, side } = layer.kernel, color = channels === 3, canvas = element("kernel");
  const columns = color ? 1 : Math.ceil(Math.sqrt(channels)), pitch = color ? side : side + 1;
  canvas.width = canvas.height = columns * pitch;
  const value = (channel, y, x) => state.kernels[offset + ((map * channels + channel) * side + y) * side + x] / 127;
  const plate = ink("--plate"), [excites, inhibits] = ["--bar-2", "--bar-1"].map(ink);
  paint(canvas, (at) => {
    const x = at % canvas.width, y = Math.floor(at / canvas.width);
    if (color) return pack(...[0, 1, 2].map((channel) => 127.5 * (1 + value(channel, y, x))));
    const channel = Math.floor(y / pitch) * columns + Math.floor(x / pitch);
    if (channel >= channels || x % pitch === side || y % pitch === side) return pack(...plate);
    const weight = value(channel, y % pitch, x % pitch), toward = weight < 0 ? inhibits : excites;
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
    const [cell, label] = state.strongest.subarray(offset + 2 * (map * images + index));
    const canvas = make("canvas", { width: px, height: px });
    canvas.getContext("2d").drawImage(sprite, (cell % perRow) * px, Math.floor(cell / perRow) * px, px, px, 0, 0, px, px);
    return make("figure", {}, [canvas, make("figcaption", { textContent: state.page.classes[label] })]);
  }));
}
