// The network as in figure 2: for each layer and column a canvas with its feature maps.
import { paint, ramp } from "./colors.js";
import { select } from "./detail.js";
import { cellAt, element, largest, make, state } from "./state.js";

const canvases = {}; // by a layer's name, one for each column

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
    const single = layer.boxes < state.page.columns;
    add("div", single ? "single layer" : "layer", { i, column: single ? `1 / span ${state.page.columns}` : box + 1 }).append(canvas);
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
  const mapAt = (event) => first + cellAt(event.offsetY, canvas.clientHeight, layer.rows) * layer.columns +
    cellAt(event.offsetX, canvas.clientWidth, layer.columns);
  canvas.onpointermove = (event) => { if (!state.held && event.pointerType !== "touch") select(layer, mapAt(event)); };
  canvas.onclick = (event) => {
    const map = mapAt(event), again = state.selected?.layer === layer && state.selected.map === map;
    state.held = !(state.held && again);
    select(layer, map);
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
