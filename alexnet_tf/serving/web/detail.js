// One feature map, enlarged, and one of its units.
import { paint, ramp } from "./colors.js";
import { cellAt, COARSE, element, make, number, state } from "./state.js";
import { showSteps } from "./steps.js";

const sprites = {};

/** Enlarges a map, and shows how its strongest unit gets its value, and the training images that activate it most. */
export function select(layer, map, quietly = false) {
  if (!state.result) return;
  const box = Math.floor(map / layer.perBox), area = layer.side ** 2;
  const changed = state.selected?.layer !== layer || state.selected.map !== map;
  state.selected = { layer, map };
  const values = state.result[layer.output].subarray(map * area, (map + 1) * area);
  const canvas = element("map"), colors = ramp(box);
  canvas.width = canvas.height = layer.side;
  paint(canvas, (at) => colors[Math.round((255 * Math.abs(values[at])) / (layer.peaks[map] || 1))]);
  const peak = values.reduce((best, value, at) => (Math.abs(value) > Math.abs(values[best]) ? at : best), 0);
  element("map-caption").textContent = describeMap(layer, map, values[peak]);
  mark(layer, box, map % layer.perBox);
  if (changed || !quietly) state.unit = null; // the strongest
  const show = (unit) => {
    showSteps(layer, map, unit);
    outline(layer, unit);
    element("field").hidden &&= quietly;
  };
  show(state.unit ?? peak);
  canvas.onpointermove = canvas.onclick = (event) => {
    quietly = false;
    state.unit = cellAt(event.offsetY, canvas.clientHeight, layer.side) * layer.side +
      cellAt(event.offsetX, canvas.clientWidth, layer.side);
    show(state.unit);
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layer.side, ArrowDown: layer.side }[event.key];
    const next = (state.unit ?? peak) + step;
    if (!step) return;
    event.preventDefault();
    quietly = false;
    if (next >= 0 && next < area) show(state.unit = next);
  };
  canvas.onpointerleave = canvas.onblur = () => (element("field").hidden = true);
  if (changed) drawStrongest(layer, map);
}

function describeMap(layer, map, strongest) {
  const { page } = state, { size } = layer.field;
  const unit = layer === page.layers.at(-1) ? page.classes[map] : `unit ${map}`; // numbered as in the figures
  return `${layer.name}, ${layer.side > 1 ? `feature map ${map}` : unit}` +
    `${layer.boxes > 1 ? ` in column ${Math.floor(map / layer.perBox) + 1}` : ""}: ` +
    `${layer.side > 1 ? "strongest " : ""}${number(strongest)}${strongest === 0 ? " (silent)" : ""}` +
    (size < page.crop_px ? `. A unit sees ${size} × ${size} pixels.` : ". It sees the whole image.") +
    (state.held && !COARSE ? " Click it again to release it." : "");
}

/** Outlines the receptive field of a unit on the image, and on a copy of it for narrow windows. */
function outline(layer, unit) {
  const { size, step, start } = layer.field, field = element("field"), side = state.page.crop_px;
  const share = (px) => `${(100 * px) / side}%`;
  const [top, left] = [Math.floor(unit / layer.side), unit % layer.side].map((position) => start + position * step);
  Object.assign(field.style, { top: share(top), left: share(left), width: share(size), height: share(size) });
  const copy = Object.assign(element("where"), { width: side, height: side }).getContext("2d");
  copy.drawImage(element("image"), 0, 0);
  Object.assign(copy, { strokeStyle: "#ff2d2d", lineWidth: side / 28 }).strokeRect(left, top, size, size);
}

/** Marks a map in its layer. */
function mark(layer, box, map) {
  document.querySelector(".mark")?.remove();
  const marker = make("div", { className: state.held ? "held mark" : "mark" });
  Object.assign(marker.style, {
    left: `${(100 * (map % layer.columns)) / layer.columns}%`, top: `${(100 * Math.floor(map / layer.columns)) / layer.rows}%`,
    width: `${100 / layer.columns}%`, height: `${100 / layer.rows}%`,
  });
  element(`${layer.name}-${box + 1}`).after(marker);
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
